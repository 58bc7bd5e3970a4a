//! From raw bytes of a console to text: lossy, and without colour where it matters.

/// A line as it is shown: what follows the last carriage return, as a terminal
/// would show it, with anything that is not UTF-8 replaced.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    let line = &bytes[..end];
    let from = line.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&line[from..]).into_owned()
}

/// A line without escape sequences (ECMA-48 §5.4: CSI, OSC and two-byte ones),
/// for whoever looks for words in it.
pub(crate) fn stripped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\u{1b}' {
            out.push(char);
            continue;
        }
        match chars.next() {
            // Parameters, then one final byte.
            Some('[') => {
                while chars.next().is_some_and(|char| !('\u{40}'..='\u{7e}').contains(&char)) {}
            }
            // A string up to BEL or ESC \.
            Some(']') => {
                while let Some(char) = chars.next() {
                    if char == '\u{7}' {
                        break;
                    }
                    if char == '\u{1b}' {
                        chars.next();
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriage_returns_act_as_on_a_terminal() {
        for (bytes, text) in [
            (&b"a\r"[..], "a"),
            (b"10 %\r20 %\r30 %", "30 %"),
            (b"10 %\r20 %\r\r", "20 %"),
            (b"\r", ""),
            (b"\xff\xfe!", "\u{fffd}\u{fffd}!"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }

    #[test]
    fn colours_are_removed() {
        for (text, plain) in [
            ("\u{1b}[32m[INFO]\u{1b}[0m ready", "[INFO] ready"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]0;title\u{1b}\\x", "x"),
            ("\u{1b}(Bx", "Bx"),
            ("cut \u{1b}[3", "cut "),
            ("cut \u{1b}", "cut "),
        ] {
            assert_eq!(stripped(text), plain);
        }
    }
}
