//! Parsed templates: what must be changed in them, what they read.

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, Pos, SmolStr};

use super::functions::{OURS, SHOW};

/// Functions that come with the template language.
const BUILTIN: &[&str] = &[
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];

pub(super) fn rewrite_list(list: &mut ListNode) {
    for node in &mut list.nodes {
        match node {
            Node::List(list) => rewrite_list(list),
            Node::Action(action) => {
                rewrite_pipe(&mut action.pipe);
                if action.pipe.decl.is_empty() {
                    let show = Expr::Identifier(action.pos, SmolStr::new(SHOW));
                    action.pipe.commands.push(CommandNode {
                        pos: action.pos,
                        args: vec![show],
                    });
                }
            }
            Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
                rewrite_pipe(&mut branch.pipe);
                rewrite_list(&mut branch.body);
                branch.else_body.iter_mut().for_each(rewrite_list);
            }
            Node::Template(template) => template.pipe.iter_mut().for_each(rewrite_pipe),
            _ => {}
        }
    }
}

/// Makes `.Method arg` a call.
fn rewrite_pipe(pipe: &mut PipeNode) {
    for (index, command) in pipe.commands.iter_mut().enumerate() {
        for arg in &mut command.args {
            match arg {
                Expr::Pipe(_, pipe) => rewrite_pipe(pipe),
                Expr::Chain(_, inner, _) => {
                    if let Expr::Pipe(_, pipe) = inner.as_mut() {
                        rewrite_pipe(pipe);
                    }
                }
                _ => {}
            }
        }
        let field = matches!(
            command.args.first(),
            Some(Expr::Field(..) | Expr::Variable(..) | Expr::Chain(..))
        );
        if field && (command.args.len() > 1 || index > 0) {
            command
                .args
                .insert(0, Expr::Identifier(command.pos, SmolStr::new("call")));
        }
    }
}

/// Calls `visit` for every expression in the order of the source until it returns something.
fn search<T>(list: &ListNode, visit: &mut dyn FnMut(&Expr) -> Option<T>) -> Option<T> {
    list.nodes.iter().find_map(|node| match node {
        Node::List(list) => search(list, visit),
        Node::Action(action) => search_pipe(&action.pipe, visit),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => search_branch(branch, visit),
        Node::Template(template) => template
            .pipe
            .as_ref()
            .and_then(|pipe| search_pipe(pipe, visit)),
        _ => None,
    })
}

fn search_branch<T>(branch: &BranchNode, visit: &mut dyn FnMut(&Expr) -> Option<T>) -> Option<T> {
    search_pipe(&branch.pipe, visit)
        .or_else(|| search(&branch.body, visit))
        .or_else(|| {
            branch
                .else_body
                .as_ref()
                .and_then(|list| search(list, visit))
        })
}

fn search_pipe<T>(pipe: &PipeNode, visit: &mut dyn FnMut(&Expr) -> Option<T>) -> Option<T> {
    pipe.commands
        .iter()
        .flat_map(|command| &command.args)
        .find_map(|arg| search_expr(arg, visit))
}

fn search_expr<T>(expr: &Expr, visit: &mut dyn FnMut(&Expr) -> Option<T>) -> Option<T> {
    visit(expr).or_else(|| match expr {
        Expr::Pipe(_, pipe) => search_pipe(pipe, visit),
        Expr::Chain(_, inner, _) => search_expr(inner, visit),
        _ => None,
    })
}

/// The first place that reads a field: its offset, as Go gives it (the second field of a chain), and the expression.
pub(super) fn first_read(list: &ListNode, field: &str) -> Option<(usize, String)> {
    search(list, &mut |expr| {
        let (pos, head, fields): (&Pos, &str, &[SmolStr]) = match expr {
            Expr::Field(pos, fields) => (pos, "", fields),
            Expr::Variable(pos, name, fields) => (pos, name, fields),
            Expr::Chain(pos, _, fields) => (pos, "(...)", fields),
            _ => return None,
        };
        if !fields.iter().any(|name| name == field) {
            return None;
        }
        let skip = match (head, fields) {
            ("", [first, _, ..]) => first.len() + 1,
            _ => 0,
        };
        let chain: String = fields.iter().map(|name| format!(".{name}")).collect();
        Some((pos.offset + skip, format!("{head}{chain}")))
    })
}

/// Whether the value itself, not a field of it, is read anywhere.
pub(super) fn reads_whole(list: &ListNode) -> bool {
    search(list, &mut |expr| {
        matches!(expr, Expr::Dot(..)).then_some(())
    })
    .is_some()
}

pub(super) fn unknown_function(list: &ListNode) -> Option<(usize, String)> {
    search(list, &mut |expr| match expr {
        Expr::Identifier(pos, name)
            if !BUILTIN.contains(&name.as_str()) && !OURS.contains(&name.as_str()) =>
        {
            Some((pos.line, name.to_string()))
        }
        _ => None,
    })
}
