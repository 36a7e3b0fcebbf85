//! Pipelines, commands and operands: what is between the words of an action.

use std::sync::Arc;

use gotmpl::parse::{CommandNode, Expr, Node, PipeNode, SmolStr};

use super::lexer::{Kind, Token};
use super::parser::{Parser, Result};

impl Parser<'_> {
    /// Reads a pipeline up to its end, of which `context` is said in errors.
    pub(super) fn pipeline(&mut self, context: &str, end: Kind) -> Result<PipeNode> {
        let first = self.peek_word();
        let mut pipe = PipeNode {
            pos: self.pos(&first),
            decl: Vec::new(),
            commands: Vec::new(),
            is_assign: false,
        };
        self.declarations(&mut pipe, context)?;
        loop {
            let token = self.next_word();
            match token.kind {
                kind if kind == end => {
                    self.check(&pipe, context)?;
                    return Ok(pipe);
                }
                Kind::Bool
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.at -= 1;
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
    }

    fn declarations(&mut self, pipe: &mut PipeNode, context: &str) -> Result<()> {
        while self.peek_word().kind == Kind::Variable {
            let before = self.at;
            let variable = self.next();
            let next = self.peek_word();
            let comma = next.kind == Kind::Char && next.text == ",";
            if !comma && !matches!(next.kind, Kind::Assign | Kind::Declare) {
                // An argument, whose blank after it counts.
                self.at = before;
                return Ok(());
            }
            self.next();
            pipe.decl.push(SmolStr::from(variable.text.as_str()));
            self.variables.push(variable.text);
            if !comma {
                pipe.is_assign = next.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.decl.len() > 1 {
                return self.error(format!("too many declarations in {context}"));
            }
            let next = self.peek_word().kind;
            if !matches!(next, Kind::Variable | Kind::Close | Kind::RightParen) {
                return self.error("range can only initialize variables");
            }
        }
        Ok(())
    }

    fn check(&self, pipe: &PipeNode, context: &str) -> Result<()> {
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        let later = pipe.commands.iter().enumerate().skip(1);
        for (index, command) in later {
            if let Some(
                Expr::Bool(..) | Expr::Dot(_) | Expr::Nil(_) | Expr::Number(..) | Expr::String(..),
            ) = command.args.first()
            {
                let text = format!("non executable command in pipeline stage {}", index + 1);
                return self.error(text);
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<CommandNode> {
        let first = self.peek_word();
        let mut args = Vec::new();
        loop {
            self.peek_word();
            args.extend(self.operand()?);
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::Close | Kind::RightParen => self.at -= 1,
                Kind::Pipe => {}
                _ => return self.unexpected(&token, "operand"),
            }
            break;
        }
        if args.is_empty() {
            return self.error("empty command");
        }
        Ok(CommandNode {
            pos: self.pos(&first),
            args,
        })
    }

    fn operand(&mut self) -> Result<Option<Expr>> {
        let Some(term) = self.term()? else {
            return Ok(None);
        };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(term));
        }
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(field(&self.next()));
        }
        // A chain is where its next field is, as in Go.
        let pos = self.pos(&first);
        Ok(Some(match term {
            Expr::Field(_, mut all) => {
                all.append(&mut fields);
                Expr::Field(pos, all)
            }
            Expr::Variable(_, name, _) => Expr::Variable(pos, name, fields),
            Expr::Bool(at, _)
            | Expr::String(at, _)
            | Expr::Number(at, _)
            | Expr::Nil(at)
            | Expr::Dot(at) => {
                let literal = self.literals.get(&at.offset);
                let shown = match (&term, literal) {
                    (_, Some(literal)) => literal.clone(),
                    (Expr::Nil(_), _) => "nil".to_owned(),
                    (Expr::Bool(_, value), _) => value.to_string(),
                    _ => ".".to_owned(),
                };
                return self.error(format!("unexpected . after term {shown:?}"));
            }
            other => Expr::Chain(pos, Box::new(other), fields),
        }))
    }

    fn term(&mut self) -> Result<Option<Expr>> {
        let token = self.next_word();
        let pos = self.pos(&token);
        Ok(Some(match token.kind {
            Kind::Identifier if !(self.is_function)(&token.text) => {
                return self.error(format!("function {:?} not defined", token.text));
            }
            Kind::Identifier => Expr::Identifier(pos, SmolStr::from(token.text.as_str())),
            Kind::Dot => Expr::Dot(pos),
            Kind::Nil => Expr::Nil(pos),
            Kind::Variable if !self.variables.contains(&token.text) => {
                return self.error(format!("undefined variable {:?}", token.text));
            }
            Kind::Variable => Expr::Variable(pos, SmolStr::from(token.text.as_str()), Vec::new()),
            Kind::Field => Expr::Field(pos, vec![field(&token)]),
            Kind::Bool => Expr::Bool(pos, token.text == "true"),
            Kind::String => Expr::String(pos, self.unquoted(&token)?),
            Kind::Number => {
                self.literals.insert(token.pos, token.text.clone());
                match literal(&token.text) {
                    Some(Expr::Number(_, number)) => Expr::Number(pos, number),
                    _ => return self.error(format!("illegal number syntax: {:?}", token.text)),
                }
            }
            Kind::LeftParen => {
                let pipe = self
                    .deeper(|parser| parser.pipeline("parenthesized pipeline", Kind::RightParen))?;
                Expr::Pipe(pos, pipe)
            }
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        }))
    }

    /// The text of a string.
    pub(super) fn unquoted(&mut self, token: &Token) -> Result<Arc<str>> {
        self.literals.insert(token.pos, token.text.clone());
        match literal(&token.text) {
            Some(Expr::String(_, text)) => Ok(text),
            _ => self.error("invalid syntax"),
        }
    }
}

fn field(token: &Token) -> SmolStr {
    SmolStr::from(token.text.trim_start_matches('.'))
}

/// Reads a string or a number.
fn literal(text: &str) -> Option<Expr> {
    let source = format!("{{{{{text}}}}}");
    let parser = gotmpl::parse::Parser::new(&source, "{{", "}}").ok()?;
    let (list, _) = parser.parse().ok()?;
    match list.nodes.into_iter().next()? {
        Node::Action(action) => action
            .pipe
            .commands
            .into_iter()
            .next()?
            .args
            .into_iter()
            .next(),
        _ => None,
    }
}
