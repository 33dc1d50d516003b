//! Names as git prints them (core.quotePath): plain where every byte is printable ASCII, otherwise a C string.

/// `bytes` as they are, or quoted if there is a byte that needs it.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    quoted_with_prefix("", bytes)
}

/// Like `quoted`, with `prefix` inside the quotes: `"a/odd\tname"`.
pub(crate) fn quoted_with_prefix(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + bytes.len() + 2);
    text.push_str(prefix);
    let mut odd = false;
    for &byte in bytes {
        let escape = match byte {
            0x07 => 'a',
            0x08 => 'b',
            b'\t' => 't',
            b'\n' => 'n',
            0x0b => 'v',
            0x0c => 'f',
            b'\r' => 'r',
            b'"' | b'\\' => char::from(byte),
            0x20..0x7f => {
                text.push(char::from(byte));
                continue;
            }
            _ => {
                odd = true;
                text.push_str(&format!("\\{byte:03o}"));
                continue;
            }
        };
        odd = true;
        text.push('\\');
        text.push(escape);
    }
    if odd { format!("\"{text}\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_git_does() {
        for (bytes, want) in [
            (&b"plain name"[..], "plain name"),
            (b"tab\there", "\"tab\\there\""),
            (b"say \"hi\"", "\"say \\\"hi\\\"\""),
            (b"back\\slash", "\"back\\\\slash\""),
            ("gr\u{fc}n".as_bytes(), "\"gr\\303\\274n\""),
            (b"\xff\x01\x7f", "\"\\377\\001\\177\""),
            (b"a\nb\rc\x07\x08\x0b\x0c", "\"a\\nb\\rc\\a\\b\\v\\f\""),
            (b"", ""),
        ] {
            assert_eq!(quoted(bytes), want);
        }
        assert_eq!(quoted_with_prefix("b/", b"x\ty"), "\"b/x\\ty\"");
    }
}
