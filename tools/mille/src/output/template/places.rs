//! What is executed instead of a parsed template: the same, but for functions of our own wherever Go would name the place of
//! an error. Each such place has a number, and its function that number for a name.

use std::collections::HashMap;

use gotmpl::parse::{
    BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, Pos, SmolStr, TemplateNode,
};

use super::functions::{self, Expected, SHOW};
use super::syntax;

/// One place; `at` is Go's beginning of an error there.
#[derive(Debug)]
pub(super) enum Place {
    /// Reads fields of its first argument; the others are those of a method. `concrete`: Go knows the type of what it reads.
    Fields {
        fields: Vec<SmolStr>,
        concrete: bool,
        at: String,
    },
    /// Lets a value through that is of a type.
    Typed { expected: Expected, at: String },
    /// Lets a value through; the function called with it next is `function`.
    Call { function: SmolStr, at: String },
    /// Lets a value through that can be iterated.
    Range { at: String },
    /// Fails with this text.
    Fail(String),
}

impl Place {
    /// The name of the function of the place with this number; no name a user could type.
    pub(super) fn function(number: usize) -> String {
        format!(" {number}")
    }
}

/// Finds the places of one tree.
pub(super) struct Finder<'f> {
    /// The name of the template, and that of the tree that is executed.
    pub(super) name: &'f str,
    pub(super) executing: &'f str,
    pub(super) source: &'f str,
    pub(super) literals: &'f HashMap<usize, String>,
    /// The names of all trees.
    pub(super) defined: &'f [SmolStr],
    /// Whether Go knows the type of the dot: inside `with`.
    pub(super) concrete: bool,
    pub(super) places: &'f mut Vec<Place>,
}

impl Finder<'_> {
    pub(super) fn list(&mut self, list: &ListNode) -> ListNode {
        let nodes = list.nodes.iter().map(|node| self.node(node)).collect();
        ListNode {
            pos: list.pos,
            nodes,
        }
    }

    fn node(&mut self, node: &Node) -> Node {
        match node {
            Node::List(list) => Node::List(self.list(list)),
            Node::Action(action) => {
                let mut action = action.clone();
                action.pipe = self.pipe(&action.pipe);
                if action.pipe.decl.is_empty() {
                    let show = function(action.pos, SHOW);
                    action.pipe.commands.push(command(action.pos, vec![show]));
                }
                Node::Action(action)
            }
            Node::If(branch) => Node::If(self.branch(branch, self.concrete)),
            Node::With(branch) => Node::With(self.branch(branch, true)),
            Node::Range(branch) => {
                let at = self.at_last_of(&branch.pipe);
                let mut branch = self.branch(branch, false);
                let check = self.place(branch.pos, Place::Range { at });
                branch.pipe.commands.push(command(branch.pos, vec![check]));
                Node::Range(branch)
            }
            Node::Template(template) => self.template(template),
            other => other.clone(),
        }
    }

    /// `concrete`: whether the type of the dot is known in its body.
    fn branch(&mut self, branch: &BranchNode, concrete: bool) -> BranchNode {
        let pipe = self.pipe(&branch.pipe);
        let outside = std::mem::replace(&mut self.concrete, concrete);
        let body = self.list(&branch.body);
        self.concrete = outside;
        BranchNode {
            pos: branch.pos,
            pipe,
            body,
            else_body: branch.else_body.as_ref().map(|list| self.list(list)),
        }
    }

    fn template(&mut self, node: &TemplateNode) -> Node {
        let pipe = node.pipe.as_ref().map(|pipe| self.pipe(pipe));
        let node = TemplateNode {
            pipe,
            ..node.clone()
        };
        if self.defined.contains(&node.name) {
            return Node::Template(node);
        }
        let at = self.at(node.pos, &format!("{{{{template {:?}}}}}", node.name));
        let text = format!("{at}template {:?} not defined", node.name);
        Node::Action(gotmpl::parse::ActionNode {
            pos: node.pos,
            pipe: PipeNode {
                pos: node.pos,
                decl: Vec::new(),
                commands: vec![self.failure(node.pos, text)],
                is_assign: false,
            },
        })
    }

    fn pipe(&mut self, pipe: &PipeNode) -> PipeNode {
        let mut commands = Vec::new();
        for (index, one) in pipe.commands.iter().enumerate() {
            self.command(pipe, one, index > 0, &mut commands);
        }
        PipeNode {
            commands,
            ..pipe.clone()
        }
    }

    /// Adds the stages that do what a command does; `piped`: it gets the value of the one before.
    fn command(
        &mut self,
        pipe: &PipeNode,
        one: &CommandNode,
        piped: bool,
        stages: &mut Vec<CommandNode>,
    ) {
        let Some((first, rest)) = one.args.split_first() else {
            return;
        };
        let bare = rest.is_empty() && !piped;
        let stage = match first {
            Expr::Identifier(pos, name) => {
                return self.call(*pos, name, one, piped, stages);
            }
            Expr::Field(..) | Expr::Chain(..) => self.read(first, rest),
            Expr::Variable(_, _, fields) if !fields.is_empty() => self.read(first, rest),
            Expr::Nil(pos) if bare => {
                let text = format!("{}nil is not a command", self.at_expr(first));
                self.failure(*pos, text)
            }
            _ if bare => command(one.pos, vec![self.expr(first)]),
            _ => {
                let at = match first {
                    Expr::Pipe(..) => self.at(pipe.pos, &self.pipe_words(pipe)),
                    _ => self.at_expr(first),
                };
                let words = self.words(first);
                let text = format!("{at}can't give argument to non-function {words}");
                self.failure(one.pos, text)
            }
        };
        stages.push(stage);
    }

    /// A field, or a method with its arguments.
    fn read(&mut self, expr: &Expr, args: &[Expr]) -> CommandNode {
        let at = self.at_expr(&last_evaluated(expr));
        let (pos, from, fields, concrete) = match expr {
            Expr::Field(pos, fields) => (*pos, Expr::Dot(*pos), fields, self.concrete),
            Expr::Variable(pos, name, fields) => {
                let variable = Expr::Variable(*pos, name.clone(), Vec::new());
                (*pos, variable, fields, true)
            }
            Expr::Chain(pos, inner, fields) => (*pos, self.expr(inner), fields, true),
            other => return command(other.pos(), vec![other.clone()]),
        };
        let place = Place::Fields {
            fields: fields.clone(),
            concrete,
            at,
        };
        let mut all = vec![self.place(pos, place), from];
        all.extend(args.iter().map(|arg| self.expr(arg)));
        command(pos, all)
    }

    /// A call of a function.
    fn call(
        &mut self,
        pos: Pos,
        name: &SmolStr,
        one: &CommandNode,
        piped: bool,
        stages: &mut Vec<CommandNode>,
    ) {
        let args = one.args.get(1..).unwrap_or_default();
        let signature = functions::signature(name);
        if let Some(text) = signature.miscounted(name, args.len(), piped) {
            let text = format!("{}{text}", self.at(pos, name));
            stages.push(self.failure(pos, text));
            return;
        }
        let mut all = vec![Expr::Identifier(pos, name.clone())];
        for (index, arg) in args.iter().enumerate() {
            let expected = signature.of(index);
            if let Some(text) = expected.refuses(arg, &self.words(arg)) {
                let text = format!("{}{text}", self.at_expr(arg));
                stages.push(self.failure(pos, text));
                return;
            }
            let value = self.expr(arg);
            all.push(if expected == Expected::Anything {
                value
            } else {
                let at = self.at_expr(&last_evaluated(arg));
                self.through(arg.pos(), value, Place::Typed { expected, at })
            });
        }
        let place = Place::Call {
            function: name.clone(),
            at: self.at(one.pos, &self.command_words(one)),
        };
        if piped {
            let expected = signature.of(args.len());
            if expected != Expected::Anything {
                let at = self.at(pos, name);
                let check = self.place(pos, Place::Typed { expected, at });
                stages.push(command(pos, vec![check]));
            }
            let mark = self.place(pos, place);
            stages.push(command(pos, vec![mark]));
        } else if let Some(last) = all.pop_if(|last| !matches!(last, Expr::Identifier(..))) {
            // What is evaluated last tells who is called.
            all.push(self.through(one.pos, last, place));
        }
        stages.push(command(pos, all));
    }

    fn expr(&mut self, expr: &Expr) -> Expr {
        let pos = expr.pos();
        let alone = |stages| {
            Expr::Pipe(
                pos,
                PipeNode {
                    pos,
                    decl: Vec::new(),
                    commands: stages,
                    is_assign: false,
                },
            )
        };
        match expr {
            Expr::Pipe(pos, pipe) => Expr::Pipe(*pos, self.pipe(pipe)),
            Expr::Field(..) | Expr::Chain(..) => alone(vec![self.read(expr, &[])]),
            Expr::Variable(_, _, fields) if !fields.is_empty() => alone(vec![self.read(expr, &[])]),
            Expr::Identifier(pos, name) => {
                let mut stages = Vec::new();
                let one = command(*pos, vec![expr.clone()]);
                self.call(*pos, name, &one, false, &mut stages);
                alone(stages)
            }
            other => other.clone(),
        }
    }

    /// An expression that passes a place.
    fn through(&mut self, pos: Pos, value: Expr, place: Place) -> Expr {
        let place = self.place(pos, place);
        Expr::Pipe(
            pos,
            PipeNode {
                pos,
                decl: Vec::new(),
                commands: vec![command(pos, vec![place, value])],
                is_assign: false,
            },
        )
    }

    fn failure(&mut self, pos: Pos, text: String) -> CommandNode {
        let fail = self.place(pos, Place::Fail(text));
        command(pos, vec![fail])
    }

    fn place(&mut self, pos: Pos, place: Place) -> Expr {
        let name = Place::function(self.places.len());
        self.places.push(place);
        function(pos, &name)
    }

    /// Go's beginning of an error: lines from 1, columns from 0.
    fn at(&self, pos: Pos, words: &str) -> String {
        let before = self.source.get(..pos.offset).unwrap_or(self.source);
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        format!(
            "template: {}:{line}:{column}: executing {:?} at <{words}>: ",
            self.name, self.executing
        )
    }

    fn at_expr(&self, expr: &Expr) -> String {
        self.at(expr.pos(), &self.words(expr))
    }

    fn at_last_of(&self, pipe: &PipeNode) -> String {
        match pipe.commands.last().and_then(last_of_command) {
            Some(expr) => self.at_expr(&expr),
            None => self.at(pipe.pos, &self.pipe_words(pipe)),
        }
    }

    fn words(&self, expr: &Expr) -> String {
        syntax::words(expr, self.literals)
    }

    fn pipe_words(&self, pipe: &PipeNode) -> String {
        syntax::pipe_words(pipe, self.literals)
    }

    fn command_words(&self, command: &CommandNode) -> String {
        syntax::command_words(command, self.literals)
    }
}

/// What Go was at last when the value of an expression is there.
fn last_evaluated(expr: &Expr) -> Expr {
    let inner = match expr {
        Expr::Pipe(_, pipe) => pipe.commands.last().and_then(last_of_command),
        Expr::Chain(_, inner, _) => Some(last_evaluated(inner)),
        _ => None,
    };
    inner.unwrap_or_else(|| expr.clone())
}

fn last_of_command(command: &CommandNode) -> Option<Expr> {
    command.args.last().map(last_evaluated)
}

fn function(pos: Pos, name: &str) -> Expr {
    Expr::Identifier(pos, SmolStr::new(name))
}

fn command(pos: Pos, args: Vec<Expr>) -> CommandNode {
    CommandNode { pos, args }
}
