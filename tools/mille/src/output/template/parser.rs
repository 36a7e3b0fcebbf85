//! Templates as Go's text/template parses them, with its words for what is wrong and its positions, into the tree that
//! gotmpl executes.

use std::collections::HashMap;
use std::sync::Arc;

use gotmpl::parse::{
    ActionNode, BranchNode, DefineNode, ListNode, Node, Pos, SmolStr, TemplateNode, TextNode,
};

use super::lexer::{Kind, Token, tokens};

pub(super) type Result<T> = std::result::Result<T, String>;

/// A parsed template.
pub(super) struct Parsed {
    pub(super) main: ListNode,
    pub(super) defined: Vec<DefineNode>,
    /// Strings and numbers as they were written, by their offset.
    pub(super) literals: HashMap<usize, String>,
}

/// Parses a template; errors are Go's texts, `template: NAME:1: unclosed action`.
pub(super) fn parse(name: &str, source: &str, is_function: fn(&str) -> bool) -> Result<Parsed> {
    let mut parser = Parser {
        name,
        source,
        tokens: tokens(source),
        at: 0,
        furthest: 0,
        action_line: 0,
        ranges: 0,
        depth: 0,
        variables: vec!["$".to_owned()],
        defined: Vec::new(),
        literals: HashMap::new(),
        is_function,
    };
    let main = parser.template()?;
    Ok(Parsed {
        main,
        defined: parser.defined,
        literals: parser.literals,
    })
}

/// A template that is being parsed.
pub(super) struct Parser<'s> {
    name: &'s str,
    source: &'s str,
    tokens: Vec<Token>,
    pub(super) at: usize,
    /// The last word that was looked at; errors name its line.
    furthest: usize,
    /// The line of the action that is being read, 0 outside.
    action_line: usize,
    /// How many ranges are open.
    ranges: usize,
    depth: usize,
    pub(super) variables: Vec<String>,
    defined: Vec<DefineNode>,
    pub(super) literals: HashMap<usize, String>,
    pub(super) is_function: fn(&str) -> bool,
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    End,
    Else,
}

impl Ended {
    fn shown(self) -> &'static str {
        match self {
            Ended::End => "{{end}}",
            Ended::Else => "{{else}}",
        }
    }
}

/// A node, or the end of the list it would be in.
enum Read {
    Node(Node),
    Ended(Ended),
}

impl Parser<'_> {
    pub(super) fn peek(&mut self) -> Token {
        let last = self.tokens.len().saturating_sub(1);
        self.furthest = self.furthest.max(self.at.min(last));
        self.tokens.get(self.at).cloned().unwrap_or(Token {
            kind: Kind::End,
            pos: self.source.len(),
            text: String::new(),
        })
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    pub(super) fn peek_word(&mut self) -> Token {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
        self.peek()
    }

    pub(super) fn next_word(&mut self) -> Token {
        let token = self.peek_word();
        self.at += 1;
        token
    }

    fn line(&self, pos: usize) -> usize {
        let before = self.source.get(..pos).unwrap_or(self.source);
        before.matches('\n').count() + 1
    }

    pub(super) fn pos(&self, token: &Token) -> Pos {
        Pos::new(token.pos, self.line(token.pos))
    }

    pub(super) fn error<T>(&self, text: impl AsRef<str>) -> Result<T> {
        let pos = self.tokens.get(self.furthest).map_or(0, |token| token.pos);
        Err(format!(
            "template: {}:{}: {}",
            self.name,
            self.line(pos),
            text.as_ref()
        ))
    }

    pub(super) fn unexpected<T>(&self, token: &Token, context: &str) -> Result<T> {
        if token.kind != Kind::Error {
            return self.error(format!("unexpected {} in {context}", token.shown()));
        }
        let mut text = token.text.clone();
        if self.action_line != 0 && self.action_line != self.line(token.pos) {
            if !text.ends_with(" action") {
                text.push_str(" in action");
            }
            text.push_str(&format!(" started at {}:{}", self.name, self.action_line));
        }
        self.error(text)
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token> {
        let token = self.next_word();
        if token.kind == kind {
            Ok(token)
        } else {
            self.unexpected(&token, context)
        }
    }

    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        /// Deeper than anybody writes, and shallow enough for any stack.
        const MOST: usize = 100;
        self.depth += 1;
        if self.depth > MOST {
            return self.error("max expression depth exceeded");
        }
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn template(&mut self) -> Result<ListNode> {
        let first = self.peek();
        let mut list = self.empty_list(&first);
        while self.peek().kind != Kind::End {
            let before = self.at;
            if self.peek().kind == Kind::Open {
                self.next();
                if self.next_word().is("define") {
                    self.definition()?;
                    continue;
                }
                self.at = before;
            }
            match self.text_or_action()? {
                Read::Node(node) => list.nodes.push(node),
                Read::Ended(ended) => return self.error(format!("unexpected {}", ended.shown())),
            }
        }
        Ok(list)
    }

    fn empty_list(&self, first: &Token) -> ListNode {
        ListNode {
            pos: self.pos(first),
            nodes: Vec::new(),
        }
    }

    fn definition(&mut self) -> Result<()> {
        const CONTEXT: &str = "define clause";
        let name = self.expect(Kind::String, CONTEXT)?;
        self.expect(Kind::Close, CONTEXT)?;
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (body, ended) = self.list()?;
        self.variables = variables;
        if ended != Ended::End {
            return self.error(format!("unexpected {} in {CONTEXT}", ended.shown()));
        }
        let define = DefineNode {
            pos: self.pos(&name),
            name: SmolStr::from(self.unquoted(&name)?.as_ref()),
            body,
        };
        self.defined.push(define);
        Ok(())
    }

    fn list(&mut self) -> Result<(ListNode, Ended)> {
        let first = self.peek_word();
        let mut list = self.empty_list(&first);
        while self.peek_word().kind != Kind::End {
            match self.text_or_action()? {
                Read::Node(node) => list.nodes.push(node),
                Read::Ended(ended) => return Ok((list, ended)),
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Result<Read> {
        let token = self.next_word();
        match token.kind {
            Kind::Text => Ok(Read::Node(Node::Text(TextNode {
                pos: self.pos(&token),
                text: Arc::from(token.text.as_str()),
            }))),
            Kind::Open => {
                self.action_line = self.line(token.pos);
                let read = self.deeper(Self::action);
                self.action_line = 0;
                read
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Result<Read> {
        let token = self.next_word();
        let pos = self.pos(&token);
        if token.kind == Kind::Keyword {
            match token.text.as_str() {
                "block" => return self.block(),
                "break" => return self.leave(&token, "{{break}}", Node::Break),
                "continue" => return self.leave(&token, "{{continue}}", Node::Continue),
                "else" => {
                    let next = self.peek_word();
                    if !next.is("if") && !next.is("with") {
                        self.expect(Kind::Close, "else")?;
                    }
                    return Ok(Read::Ended(Ended::Else));
                }
                "end" => {
                    self.expect(Kind::Close, "end")?;
                    return Ok(Read::Ended(Ended::End));
                }
                "if" => return Ok(Read::Node(Node::If(self.control("if", pos)?))),
                "range" => return Ok(Read::Node(Node::Range(self.control("range", pos)?))),
                "with" => return Ok(Read::Node(Node::With(self.control("with", pos)?))),
                "template" => return self.call(),
                _ => {}
            }
        }
        self.at -= 1;
        let pipe = self.pipeline("command", Kind::Close)?;
        Ok(Read::Node(Node::Action(ActionNode { pos, pipe })))
    }

    fn leave(&mut self, token: &Token, context: &str, node: fn(Pos) -> Node) -> Result<Read> {
        self.expect(Kind::Close, context)?;
        if self.ranges == 0 {
            return self.error(format!("{context} outside {{{{range}}}}"));
        }
        Ok(Read::Node(node(self.pos(token))))
    }

    fn control(&mut self, context: &str, pos: Pos) -> Result<BranchNode> {
        let known = self.variables.len();
        let pipe = self.pipeline(context, Kind::Close)?;
        self.ranges += usize::from(context == "range");
        let (body, ended) = self.list()?;
        self.ranges -= usize::from(context == "range");
        let mut else_body = None;
        if ended == Ended::Else {
            // `{{else if` is an `if` in the else, without an end of its own.
            let next = self.peek();
            let spaced = self.peek_word();
            let chained = (spaced.is(context) && context != "range").then_some(spaced);
            else_body = Some(match chained {
                Some(token) => {
                    self.next();
                    let pos = self.pos(&token);
                    let branch = self.deeper(|parser| parser.control(context, pos))?;
                    let mut list = self.empty_list(&next);
                    list.nodes.push(match context {
                        "if" => Node::If(branch),
                        _ => Node::With(branch),
                    });
                    list
                }
                None => {
                    let (list, ended) = self.list()?;
                    if ended != Ended::End {
                        return self.error(format!("expected end; found {}", ended.shown()));
                    }
                    list
                }
            });
        }
        self.variables.truncate(known);
        Ok(BranchNode {
            pos,
            pipe,
            body,
            else_body,
        })
    }

    /// `{{template "name" pipeline}}`.
    fn call(&mut self) -> Result<Read> {
        let node = self.named("template clause")?;
        Ok(Read::Node(Node::Template(node)))
    }

    fn named(&mut self, context: &str) -> Result<TemplateNode> {
        let name = self.next_word();
        if name.kind != Kind::String {
            return self.unexpected(&name, context);
        }
        let pipe = if self.peek_word().kind == Kind::Close {
            self.next();
            None
        } else {
            Some(self.pipeline(context, Kind::Close)?)
        };
        Ok(TemplateNode {
            pos: self.pos(&name),
            name: SmolStr::from(self.unquoted(&name)?.as_ref()),
            pipe,
        })
    }

    fn block(&mut self) -> Result<Read> {
        const CONTEXT: &str = "block clause";
        let node = self.named(CONTEXT)?;
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (body, ended) = self.list()?;
        self.variables = variables;
        if ended != Ended::End {
            return self.error(format!("unexpected {} in {CONTEXT}", ended.shown()));
        }
        self.defined.push(DefineNode {
            pos: node.pos,
            name: node.name.clone(),
            body,
        });
        Ok(Read::Node(Node::Template(node)))
    }
}
