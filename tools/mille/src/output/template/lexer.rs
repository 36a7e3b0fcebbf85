//! The words of a template, as Go's text/template takes it apart. What is wrong is a word, too: the last one, with Go's text.

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    End,
    Text,
    Open,
    Close,
    Space,
    Assign,
    Declare,
    Pipe,
    LeftParen,
    RightParen,
    /// Some other character.
    Char,
    /// A number or a character constant.
    Number,
    String,
    Bool,
    Dot,
    Nil,
    Field,
    Variable,
    Identifier,
    Keyword,
}

/// One word.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Offset in the source.
    pub(super) pos: usize,
    pub(super) text: String,
}

impl Token {
    /// How Go names it in an error.
    pub(super) fn shown(&self) -> String {
        /// Longer words are cut.
        const MOST: usize = 10;
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            Kind::Keyword | Kind::Dot | Kind::Nil => format!("<{}>", self.text),
            _ if self.text.len() > MOST => {
                let cut: String = self.text.chars().take(MOST).collect();
                format!("{cut:?}...")
            }
            _ => format!("{:?}", self.text),
        }
    }

    pub(super) fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Keyword && self.text == keyword
    }
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// Length of a dash and the blank beside it, which take blanks of the text away.
const TRIM: usize = 2;
const KEYWORDS: [&str; 10] = [
    "block", "break", "continue", "define", "else", "end", "if", "range", "template", "with",
];

/// Takes a template apart.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        source,
        at: 0,
        start: 0,
        parens: 0,
        tokens: Vec::new(),
    };
    if lexer.template().is_some() {
        lexer.push(Kind::End, "EOF");
    }
    lexer.tokens
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_letter(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Whether a dash that takes blanks away comes first, and then what is after it.
fn trimmed(rest: &str, blank_first: bool) -> bool {
    let mut letters = rest.chars();
    match (letters.next(), letters.next()) {
        (Some('-'), Some(blank)) if !blank_first => is_blank(blank),
        (Some(blank), Some('-')) if blank_first => is_blank(blank),
        _ => false,
    }
}

/// A function's `None`: an error was found and noted.
struct Lexer<'s> {
    source: &'s str,
    at: usize,
    /// Where the word begins.
    start: usize,
    parens: usize,
    tokens: Vec<Token>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
    }

    fn push(&mut self, kind: Kind, text: &str) {
        self.tokens.push(Token {
            kind,
            pos: self.start,
            text: text.to_owned(),
        });
        self.start = self.at;
    }

    /// What was read since the last word.
    fn word(&self) -> &'s str {
        self.source.get(self.start..self.at).unwrap_or_default()
    }

    #[allow(clippy::unnecessary_wraps, reason = "the arms of a match")]
    fn emit(&mut self, kind: Kind) -> Option<()> {
        let word = self.word();
        self.push(kind, word);
        Some(())
    }

    fn error(&mut self, text: impl AsRef<str>) -> Option<()> {
        self.push(Kind::Error, text.as_ref());
        None
    }

    fn template(&mut self) -> Option<()> {
        loop {
            self.start = self.at;
            let open = self.rest().find(OPEN);
            let until = open.map_or(self.source.len(), |open| self.at + open);
            let inside = self
                .source
                .get(until + OPEN.len()..)
                .filter(|_| open.is_some());
            let trims = inside.is_some_and(|inside| trimmed(inside, false));
            let mut text = self.source.get(self.at..until).unwrap_or_default();
            if trims {
                text = text.trim_end_matches(is_blank);
            }
            self.at = until;
            if !text.is_empty() {
                self.push(Kind::Text, text);
            }
            self.start = until;
            if open.is_none() {
                return Some(());
            }
            self.at = until + OPEN.len() + if trims { TRIM } else { 0 };
            if self.rest().starts_with("/*") {
                self.comment()?;
            } else {
                self.push(Kind::Open, OPEN);
                self.parens = 0;
                self.action()?;
            }
            if self.at >= self.source.len() {
                self.start = self.at;
                return Some(());
            }
        }
    }

    fn comment(&mut self) -> Option<()> {
        let Some(end) = self.rest().find("*/") else {
            return self.error("unclosed comment");
        };
        self.at += end + 2;
        match self.closing() {
            Some(trims) => {
                self.close(trims);
                Some(())
            }
            None => self.error("comment ends before closing delimiter"),
        }
    }

    /// Whether the end of an action comes next, and if so whether it takes blanks of the text away.
    fn closing(&self) -> Option<bool> {
        let rest = self.rest();
        let trims =
            trimmed(rest, true) && rest.get(TRIM..).is_some_and(|rest| rest.starts_with(CLOSE));
        (trims || rest.starts_with(CLOSE)).then_some(trims)
    }

    fn close(&mut self, trims: bool) {
        if trims {
            self.at += TRIM + CLOSE.len();
            self.skip(is_blank);
        } else {
            self.at += CLOSE.len();
        }
    }

    /// Reads until the end of an action.
    fn action(&mut self) -> Option<()> {
        loop {
            self.start = self.at;
            if let Some(trims) = self.closing() {
                if self.parens > 0 {
                    return self.error("unclosed left paren");
                }
                self.start += if trims { TRIM } else { 0 };
                self.push(Kind::Close, CLOSE);
                self.close(trims);
                return Some(());
            }
            match self.next() {
                None => return self.error("unclosed action"),
                Some(first) => self.inside(first)?,
            }
        }
    }

    fn inside(&mut self, first: char) -> Option<()> {
        match first {
            blank if is_blank(blank) => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' if self.next() == Some('=') => self.emit(Kind::Declare),
            ':' => self.error("expected :="),
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', "unterminated quoted string", Kind::String),
            '`' => {
                self.skip(|c| c != '`');
                match self.next() {
                    Some(_) => self.emit(Kind::String),
                    None => self.error("unterminated raw quoted string"),
                }
            }
            '\'' => self.quoted('\'', "unterminated character constant", Kind::Number),
            '$' => self.name(Kind::Variable),
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => self.name(Kind::Field),
            '.' | '+' | '-' | '0'..='9' => {
                self.at = self.start;
                self.number()
            }
            letter if is_letter(letter) => self.identifier(),
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen)
            }
            ')' if self.parens == 0 => self.error("unexpected right paren"),
            ')' => {
                self.parens -= 1;
                self.emit(Kind::RightParen)
            }
            other if other.is_ascii_graphic() => self.emit(Kind::Char),
            other => self.error(format!(
                "unrecognized character in action: U+{:04X} '{other}'",
                u32::from(other)
            )),
        }
    }

    fn space(&mut self) -> Option<()> {
        self.skip(is_blank);
        // The last blank may belong to the dash of an end.
        let last = self.at - 1;
        let end = self.source.get(last..).unwrap_or_default();
        if trimmed(end, true) && end.get(TRIM..).is_some_and(|rest| rest.starts_with(CLOSE)) {
            self.at = last;
        }
        if self.at == self.start {
            return Some(());
        }
        self.emit(Kind::Space)
    }

    fn quoted(&mut self, quote: char, unterminated: &str, kind: Kind) -> Option<()> {
        loop {
            match self.next() {
                None | Some('\n') => return self.error(unterminated),
                Some('\\') if matches!(self.next(), None | Some('\n')) => {
                    return self.error(unterminated);
                }
                Some(end) if end == quote => return self.emit(kind),
                Some(_) => {}
            }
        }
    }

    /// Whether a word may end here.
    fn ends(&self) -> bool {
        self.peek()
            .is_none_or(|c| is_blank(c) || ".,|:()".contains(c))
            || self.rest().starts_with(CLOSE)
    }

    fn bad(&mut self) -> Option<()> {
        let bad = self.peek().unwrap_or_default();
        self.error(format!("bad character U+{:04X} '{bad}'", u32::from(bad)))
    }

    /// A field or a variable, the dot or the dollar of which was read.
    fn name(&mut self, kind: Kind) -> Option<()> {
        if self.ends() {
            return self.emit(if kind == Kind::Field { Kind::Dot } else { kind });
        }
        self.skip(is_letter);
        if self.ends() {
            self.emit(kind)
        } else {
            self.bad()
        }
    }

    fn identifier(&mut self) -> Option<()> {
        self.skip(is_letter);
        if !self.ends() {
            return self.bad();
        }
        let kind = match self.word() {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.emit(kind)
    }

    fn number(&mut self) -> Option<()> {
        let accept = |lexer: &mut Self, set: &str| {
            let found = lexer.peek().is_some_and(|c| set.contains(c));
            if found {
                lexer.next();
            }
            found
        };
        accept(self, "+-");
        let mut digits = "0123456789_";
        if accept(self, "0") {
            if accept(self, "xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if accept(self, "oO") {
                digits = "01234567_";
            } else if accept(self, "bB") {
                digits = "01_";
            }
        }
        let run = |lexer: &mut Self, set: &str| lexer.skip(|c| set.contains(c));
        run(self, digits);
        if accept(self, ".") {
            run(self, digits);
        }
        let exponent = match digits.len() {
            11 => accept(self, "eE"),
            23 => accept(self, "pP"),
            _ => false,
        };
        if exponent {
            accept(self, "+-");
            run(self, "0123456789_");
        }
        accept(self, "i");
        if self.peek().is_some_and(is_letter) {
            self.next();
            let text = format!("bad number syntax: {:?}", self.word());
            return self.error(text);
        }
        self.emit(Kind::Number)
    }
}
