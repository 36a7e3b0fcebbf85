//! Parsed templates: what they read, and how Go writes them.

use std::collections::HashMap;

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, Pos, SmolStr};

use super::functions::OURS;

/// Functions that come with the template language.
const BUILTIN: &[&str] = &[
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];

/// Whether there is a function of that name.
pub(super) fn is_function(name: &str) -> bool {
    BUILTIN.contains(&name) || OURS.contains(&name)
}

/// An expression as Go writes it, given the literals as they were written.
pub(super) fn words(expr: &Expr, literals: &HashMap<usize, String>) -> String {
    let literal = |pos: &Pos| literals.get(&pos.offset).cloned().unwrap_or_default();
    let chain = |head: &str, fields: &[SmolStr]| {
        let fields = fields.iter().map(|name| format!(".{name}"));
        fields.fold(head.to_owned(), |all, field| all + &field)
    };
    match expr {
        Expr::Dot(_) => ".".to_owned(),
        Expr::Nil(_) => "nil".to_owned(),
        Expr::Bool(_, value) => value.to_string(),
        Expr::String(pos, _) | Expr::Number(pos, _) => literal(pos),
        Expr::Identifier(_, name) => name.to_string(),
        Expr::Field(_, fields) => chain("", fields),
        Expr::Variable(_, name, fields) => chain(name, fields),
        Expr::Pipe(_, pipe) => format!("({})", pipe_words(pipe, literals)),
        Expr::Chain(_, inner, fields) => chain(&words(inner, literals), fields),
    }
}

/// A pipeline as Go writes it.
pub(super) fn pipe_words(pipe: &PipeNode, literals: &HashMap<usize, String>) -> String {
    let commands: Vec<String> = pipe
        .commands
        .iter()
        .map(|command| command_words(command, literals))
        .collect();
    let commands = commands.join(" | ");
    if pipe.decl.is_empty() {
        return commands;
    }
    let sign = if pipe.is_assign { "=" } else { ":=" };
    format!("{} {sign} {commands}", pipe.decl.join(", "))
}

/// A command as Go writes it.
pub(super) fn command_words(command: &CommandNode, literals: &HashMap<usize, String>) -> String {
    let args = command.args.iter().map(|arg| words(arg, literals));
    args.collect::<Vec<_>>().join(" ")
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

/// Whether a field of that name is read anywhere.
pub(super) fn reads_field(list: &ListNode, field: &str) -> bool {
    search(list, &mut |expr| {
        let (Expr::Field(_, fields) | Expr::Variable(_, _, fields) | Expr::Chain(_, _, fields)) =
            expr
        else {
            return None;
        };
        fields.iter().any(|name| name == field).then_some(())
    })
    .is_some()
}

/// Whether the value itself, not a field of it, is read anywhere.
pub(super) fn reads_whole(list: &ListNode) -> bool {
    search(list, &mut |expr| {
        matches!(expr, Expr::Dot(..)).then_some(())
    })
    .is_some()
}
