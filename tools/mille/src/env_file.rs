//! Files of environment variables and of labels, line by line as docker reads them: leading blanks cut, everything after
//! `=` kept, `#` at the start a comment, a byte order mark and carriage returns dropped.

/// Reads `--env-file`: `NAME` alone takes the value of our own environment, or is left out.
pub(crate) fn read(path: &str) -> Result<Vec<String>, String> {
    let own = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|value| format!("{name}={value}"))
    };
    parse(path, &content(path)?, own)
}

/// Reads `--label-file`: `NAME` alone is left out.
pub(crate) fn read_labels(path: &str) -> Result<Vec<String>, String> {
    parse(path, &content(path)?, |_| None)
}

fn content(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let operation = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => "open",
            _ => "read",
        };
        format!("{operation} {path}: {}", crate::output::go_io_error(&error))
    })
}

fn parse(
    path: &str,
    bytes: &[u8],
    alone: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut entries = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(format!(
                "invalid env file ({path}): invalid utf8 bytes at line {}: {}",
                number + 1,
                go_bytes(line)
            ));
        };
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(format!(
                "invalid env file ({path}): no variable name on line '{line}'"
            ));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!(
                "invalid env file ({path}): variable '{name}' contains whitespaces"
            ));
        }
        entries.extend(if line.contains('=') {
            Some(line.to_owned())
        } else {
            alone(name)
        });
    }
    Ok(entries)
}

/// A byte slice as Go's `%v` shows it.
fn go_bytes(bytes: &[u8]) -> String {
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &[u8]) -> Result<Vec<String>, String> {
        parse("ef", text, |name| {
            (name == "PASSED").then(|| "PASSED=yes".to_owned())
        })
    }

    #[test]
    fn lines() {
        for (text, want) in [
            (
                &b"# c\nA=1\n  B=2\nD=4 \nE=\"q\"\n"[..],
                vec!["A=1", "B=2", "D=4 ", "E=\"q\""],
            ),
            (
                b"G\nPASSED\nI=a=b\nJ=\n\n   \n",
                vec!["PASSED=yes", "I=a=b", "J="],
            ),
            (
                b"\xef\xbb\xbfA=bom\nQ=x\r\nlast=nonl",
                vec!["A=bom", "Q=x", "last=nonl"],
            ),
        ] {
            assert_eq!(given(text).unwrap(), want);
        }
    }

    #[test]
    fn mistakes() {
        for (text, want) in [
            (
                &b"C = 3\n"[..],
                "invalid env file (ef): variable 'C ' contains whitespaces",
            ),
            (
                b"export H=1\n",
                "invalid env file (ef): variable 'export H' contains whitespaces",
            ),
            (
                b"=x\n",
                "invalid env file (ef): no variable name on line '=x'",
            ),
            (
                b"A=\xff\n",
                "invalid env file (ef): invalid utf8 bytes at line 1: [65 61 255]",
            ),
        ] {
            assert_eq!(given(text).unwrap_err(), want);
        }
    }
}
