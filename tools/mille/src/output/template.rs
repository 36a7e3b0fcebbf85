//! `--format`: Go templates with docker's functions over JSON values.
//!
//! Values are docker's JSON, so what Go knows of types is told by the names of keys: which objects are Go maps (shown as
//! `map[k:v]`) and which are structs (`{a b}`), and what an absent value is (an empty list, an empty map, nil). The order of
//! keys is kept beside the values, found again by the address of the shared object.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::parse::{
    BranchNode, CommandNode, Expr, ListNode, Node, Parser, PipeNode, Pos, SmolStr,
};
use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::json::Tree;

/// Functions that come with the template language.
const BUILTIN: &[&str] = &[
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];
/// docker's own.
const OURS: &[&str] = &[
    "join", "json", "lower", "pad", "split", "title", "truncate", "upper",
];
/// Shows a value as Go prints it; no name a user could type.
const SHOW: &str = " show";
/// Keys whose objects are maps in docker's Go types.
const MAPS: &[&str] = &[
    "Annotations",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];
/// Keys whose absent value is nil, not an empty list.
const POINTERS: &[&str] = &[
    "Health",
    "Healthcheck",
    "IPAMConfig",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Platform",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
];

/// What an object is in docker's Go types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Struct,
    Map,
    List,
    /// One line of a list: its JSON is written by Go's `json.Marshal`.
    Row,
}

type Known = HashMap<usize, (Tree, Shape)>;

/// Values for a template.
#[derive(Debug)]
pub(crate) struct Data {
    value: Value,
    known: Arc<Known>,
}

impl Data {
    /// An object as inspect shows it; `absent` are keys of pointers that are nil and left out of the JSON.
    pub(crate) fn object(tree: &Tree, absent: &[&str]) -> Data {
        let mut known = Known::new();
        let mut root = entries(tree, &mut known);
        for key in absent {
            root.entry(Arc::from(*key)).or_insert(Value::Nil);
        }
        Self::finish(tree.clone(), Shape::Struct, root, known)
    }

    /// One line of a list; `methods` take arguments and are left out of its JSON.
    pub(crate) fn row(tree: &Tree, methods: Vec<(&str, gotmpl::ValueFunc)>) -> Data {
        let mut known = Known::new();
        let mut root = entries(tree, &mut known);
        root.extend(
            methods
                .into_iter()
                .map(|(name, method)| (Arc::from(name), Value::Function(method))),
        );
        Self::finish(tree.clone(), Shape::Row, root, known)
    }

    fn finish(tree: Tree, shape: Shape, root: BTreeMap<Arc<str>, Value>, mut known: Known) -> Data {
        let root = Arc::new(root);
        known.insert(address(&root), (tree, shape));
        Data {
            value: Value::Map(root),
            known: Arc::new(known),
        }
    }
}

fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>().addr()
}

fn entries(tree: &Tree, known: &mut Known) -> BTreeMap<Arc<str>, Value> {
    let Tree::Map(entries) = tree else {
        return BTreeMap::new();
    };
    entries
        .iter()
        .map(|(key, tree)| (Arc::from(key.as_str()), value(tree, key, known)))
        .collect()
}

/// Whether the object (or nothing) under a key is a map.
fn is_map(key: &str, tree: &Tree) -> bool {
    // The options of a log driver and the configuration of a container share their name.
    let options = |tree: &Tree| matches!(tree, Tree::Map(all) if all.iter().all(|(_, value)| matches!(value, Tree::Text(_))));
    MAPS.contains(&key) || key == "Config" && options(tree)
}

fn value(tree: &Tree, key: &str, known: &mut Known) -> Value {
    match tree {
        Tree::Null if POINTERS.contains(&key) => Value::Nil,
        Tree::Null if is_map(key, tree) => shared_map(BTreeMap::new(), tree, Shape::Map, known),
        Tree::Null => shared_list(Vec::new(), tree, known),
        Tree::Bool(value) => Value::Bool(*value),
        Tree::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::Int(number),
            (_, Some(number), _) => Value::Uint(number),
            (_, _, number) => Value::Float(number.unwrap_or_default()),
        },
        Tree::Text(text) => Value::String(Arc::from(text.as_str())),
        Tree::List(items) => {
            let items = items.iter().map(|item| value(item, key, known)).collect();
            shared_list(items, tree, known)
        }
        Tree::Map(_) => {
            let shape = if is_map(key, tree) {
                Shape::Map
            } else {
                Shape::Struct
            };
            shared_map(entries(tree, known), tree, shape, known)
        }
    }
}

fn shared_map(
    map: BTreeMap<Arc<str>, Value>,
    tree: &Tree,
    shape: Shape,
    known: &mut Known,
) -> Value {
    let map = Arc::new(map);
    known.insert(address(&map), (tree.clone(), shape));
    Value::Map(map)
}

fn shared_list(items: Vec<Value>, tree: &Tree, known: &mut Known) -> Value {
    let items: Arc<[Value]> = items.into();
    known.insert(address(&items), (tree.clone(), Shape::List));
    Value::List(items)
}

fn find<'k>(known: &'k Known, value: &Value) -> Option<&'k (Tree, Shape)> {
    match value {
        Value::Map(map) => known.get(&address(map)),
        Value::List(items) => known.get(&address(items)),
        _ => None,
    }
}

/// What is said of a field that is not there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing {
    /// As of a map.
    Key,
    /// As of a Go type.
    Field(&'static str),
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Format {
    name: &'static str,
    source: String,
    missing: Missing,
    /// The template itself first, then those it defines.
    trees: Vec<(String, ListNode)>,
}

impl Format {
    /// Parses a template; errors are Go's texts, `template: :1: unclosed action`.
    pub(crate) fn parse(
        name: &'static str,
        source: &str,
        missing: Missing,
    ) -> Result<Format, String> {
        let parsed = Parser::new(source, "{{", "}}").and_then(Parser::parse);
        let (main, defined) = parsed.map_err(|error| parse_error(name, &error))?;
        let mut trees = vec![(MAIN.to_owned(), main)];
        trees.extend(
            defined
                .into_iter()
                .map(|define| (define.name.to_string(), define.body)),
        );
        for (_, tree) in &mut trees {
            if let Some((line, function)) = unknown_function(tree) {
                return Err(format!(
                    "template: {name}:{line}: function \"{function}\" not defined"
                ));
            }
            rewrite_list(tree);
        }
        Ok(Format {
            name,
            source: source.to_owned(),
            missing,
            trees,
        })
    }

    /// Returns whether the template reads a field of the outermost value (or of any).
    pub(crate) fn reads(&self, field: &str) -> bool {
        self.trees
            .iter()
            .any(|(_, tree)| first_read(tree, field).is_some())
    }

    /// Fills in the template; errors are Go's texts.
    pub(crate) fn render(&self, data: &Data) -> Result<String, String> {
        self.run(
            docker_functions(Template::new(self.name), &data.known),
            data,
        )
    }

    /// Fills in the names of columns: functions leave them as they are.
    pub(crate) fn render_header(&self, data: &Data) -> Result<String, String> {
        let mut template = Template::new(self.name);
        for name in OURS {
            template = template.func(name, |args| Ok(first(args).clone()));
        }
        self.run(with_show(template, &data.known), data)
    }

    fn run(&self, template: Template, data: &Data) -> Result<String, String> {
        let mut template = template.missing_key(MissingKey::Error);
        for (name, tree) in &self.trees {
            template = template.add_parse_tree(name, tree.clone());
        }
        template
            .execute_template_to_string(MAIN, &data.value)
            .map_err(|error| self.explain(error))
    }

    /// Go's text for an error of execution; where it happened is found again by the field's name.
    fn explain(&self, error: TemplateError) -> String {
        let name = self.name;
        match error {
            TemplateError::MissingKey { key } => {
                let text = match self.missing {
                    Missing::Key => format!("map has no entry for key \"{key}\""),
                    Missing::Field(kind) => format!("can't evaluate field {key} in type {kind}"),
                };
                let read = self
                    .trees
                    .iter()
                    .find_map(|(_, tree)| first_read(tree, &key));
                let Some((place, expression)) = read else {
                    return format!("template: {name}: {text}");
                };
                let (line, column) = self.position(place);
                format!(
                    "template: {name}:{line}:{column}: executing \"{name}\" at <{expression}>: {text}"
                )
            }
            TemplateError::Exec(text) => format!("template: {name}: executing \"{name}\": {text}"),
            other => format!("template: {name}: executing \"{name}\": {other}"),
        }
    }

    /// Line and column of an offset as Go counts them: lines from 1, columns from 0.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.source.get(..offset).unwrap_or(&self.source);
        let line = before.matches('\n').count() + 1;
        (
            line,
            before.len() - before.rfind('\n').map_or(0, |newline| newline + 1),
        )
    }
}

/// The name under which the template itself is kept; no name a user could define.
const MAIN: &str = "\0";

fn parse_error(name: &str, error: &TemplateError) -> String {
    match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: {name}:{line}: {message}")
        }
        other => format!("template: {name}:1: {other}"),
    }
}

fn docker_functions(template: Template, known: &Arc<Known>) -> Template {
    let originals = Arc::clone(known);
    let template = template
        .func("json", move |args| Ok(text(json(first(args), &originals))))
        .func("split", |args| {
            let pieces: Vec<Value> = words(args, 0)
                .split(words(args, 1).as_str())
                .map(|piece| text(piece.to_owned()))
                .collect();
            Ok(Value::List(pieces.into()))
        })
        .func("join", |args| match first(args) {
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                Ok(text(items.join(&words(args, 1))))
            }
            other => Err(TemplateError::Exec(format!(
                "error calling join: expected a list, got {}",
                other.type_name()
            ))),
        })
        .func("title", |args| Ok(text(title(&words(args, 0)))))
        .func("lower", |args| Ok(text(words(args, 0).to_lowercase())))
        .func("upper", |args| Ok(text(words(args, 0).to_uppercase())))
        .func("pad", |args| {
            Ok(text(pad(&words(args, 0), number(args, 1), number(args, 2))))
        })
        .func("truncate", |args| {
            Ok(text(words(args, 0).chars().take(number(args, 1)).collect()))
        })
        .func("index", index);
    with_show(template, known)
}

fn with_show(template: Template, known: &Arc<Known>) -> Template {
    let originals = Arc::clone(known);
    template.func(SHOW, move |args| {
        let value = first(args);
        Ok(match find(&originals, value) {
            None if matches!(value, Value::Nil) => text("<nil>".to_owned()),
            Some((tree, shape)) if *shape != Shape::Row => {
                text(shown(tree, "", *shape == Shape::Map))
            }
            _ => value.clone(),
        })
    })
}

fn first(args: &[Value]) -> &Value {
    args.first().unwrap_or(&Value::Nil)
}

fn text(text: String) -> Value {
    Value::String(Arc::from(text))
}

fn words(args: &[Value], place: usize) -> String {
    args.get(place).map(ToString::to_string).unwrap_or_default()
}

fn number(args: &[Value], place: usize) -> usize {
    args.get(place)
        .and_then(Value::as_int)
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

/// Upper case for the first letter of each word.
fn title(text: &str) -> String {
    let mut previous = ' ';
    let letters = text.chars().flat_map(|letter| {
        let begins = !(previous.is_alphanumeric() || previous == '_' || previous == '\'');
        previous = letter;
        let upper: Vec<char> = if begins {
            letter.to_uppercase().collect()
        } else {
            vec![letter]
        };
        upper
    });
    letters.collect()
}

/// Blanks around a text that is not empty.
fn pad(text: &str, before: usize, after: usize) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{}{text}{}", " ".repeat(before), " ".repeat(after))
    }
}

/// Go's `index`; in a map of texts an absent key is the empty text.
fn index(args: &[Value]) -> gotmpl::Result<Value> {
    let mut value = first(args).clone();
    for key in args.get(1..).unwrap_or_default() {
        let texts = matches!(&value, Value::Map(map) if map.values().all(|value| matches!(value, Value::String(_))));
        value = match value.index(key)? {
            Value::Nil if texts => text(String::new()),
            found => found,
        };
    }
    Ok(value)
}

fn json(value: &Value, known: &Known) -> String {
    match find(known, value) {
        Some((tree, Shape::Row)) => tree.escaped(),
        Some((tree, _)) => tree.compact(),
        None => plain_tree(value, known).compact(),
    }
}

/// The JSON of a value that a function made.
fn plain_tree(value: &Value, known: &Known) -> Tree {
    if let Some((tree, _)) = find(known, value) {
        return tree.clone();
    }
    match value {
        Value::Bool(value) => Tree::Bool(*value),
        Value::Int(number) => Tree::Number((*number).into()),
        Value::Uint(number) => Tree::Number((*number).into()),
        Value::Float(number) => {
            serde_json::Number::from_f64(*number).map_or(Tree::Null, Tree::Number)
        }
        Value::String(text) => Tree::Text(text.to_string()),
        Value::List(items) => {
            Tree::List(items.iter().map(|item| plain_tree(item, known)).collect())
        }
        Value::Map(map) => Tree::Map(
            map.iter()
                .map(|(key, item)| (key.to_string(), plain_tree(item, known)))
                .collect(),
        ),
        _ => Tree::Null,
    }
}

/// How Go prints a value: `[a b]`, `map[k:v]`, `{a b}`.
fn shown(tree: &Tree, key: &str, map: bool) -> String {
    let inner = |key: &str, tree: &Tree| shown(tree, key, is_map(key, tree));
    match tree {
        Tree::Null if map => "map[]".to_owned(),
        Tree::Null if POINTERS.contains(&key) => "<nil>".to_owned(),
        Tree::Null => "[]".to_owned(),
        Tree::Text(text) => text.clone(),
        Tree::List(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(item, key, false)).collect();
            format!("[{}]", items.join(" "))
        }
        Tree::Map(entries) if map => {
            let sorted: BTreeMap<&str, &Tree> = entries
                .iter()
                .map(|(key, value)| (key.as_str(), value))
                .collect();
            let entries: Vec<String> = sorted
                .iter()
                .map(|(key, value)| format!("{key}:{}", inner(key, value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        Tree::Map(entries) => {
            let values: Vec<String> = entries
                .iter()
                .map(|(key, value)| inner(key, value))
                .collect();
            format!("{{{}}}", values.join(" "))
        }
        other => other.compact(),
    }
}

fn rewrite_list(list: &mut ListNode) {
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
fn first_read(list: &ListNode, field: &str) -> Option<(usize, String)> {
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

fn unknown_function(list: &ListNode) -> Option<(usize, String)> {
    search(list, &mut |expr| match expr {
        Expr::Identifier(pos, name)
            if !BUILTIN.contains(&name.as_str()) && !OURS.contains(&name.as_str()) =>
        {
            Some((pos.line, name.to_string()))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
