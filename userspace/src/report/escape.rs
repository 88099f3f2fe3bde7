//! Text from outside on its way into a report. User names, log lines and reasons are whatever an attacker made them.

use crate::human::printable;

/// `text` as HTML, in an element or an attribute with quotes.
pub(super) fn html(text: &str) -> String {
    escaped(text, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}

/// `text` in Markdown, in a paragraph or the cell of a table: nothing in it is markup, a link or the end of a cell.
pub(super) fn markdown(text: &str) -> String {
    let plain = printable(text);
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        // Not those that are markup nowhere, or only at the begin of a line.
        if c.is_ascii_punctuation()
            && !matches!(c, ',' | ';' | '%' | '-' | '/' | '?' | '"' | '\'' | '+' | '=' | ')')
        {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// `text` as a field of CSV (RFC 4180) that no spreadsheet takes for a formula.
pub(super) fn csv(text: &str) -> String {
    const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let plain = printable(text);
    // Some skip white space before they look.
    let guard = if plain.trim_start().starts_with(FORMULA) { "'" } else { "" };
    if guard.is_empty() && !plain.contains(['"', ',', ';', ' ']) {
        return plain.into_owned();
    }
    format!("\"{guard}{}\"", plain.replace('"', "\"\""))
}

fn escaped(text: &str, escape: impl Fn(char) -> Option<&'static str>) -> String {
    let plain = printable(text);
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        match escape(c) {
            Some(instead) => escaped.push_str(instead),
            None => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup() {
        assert_eq!(
            html("<script>alert('x')</script> & \"\x07"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;\u{fffd}"
        );
        assert_eq!(
            markdown("a|b [x](https://e.example) `c` <i> *d* _e_ \\ www.f\n# g"),
            "a\\|b \\[x\\]\\(https\\://e\\.example) \\`c\\` \\<i\\> \\*d\\* \\_e\\_ \\\\ www\\.f\u{fffd}\\# g"
        );
    }

    #[test]
    fn nothing_is_a_formula() {
        for (text, field) in [
            ("root", "root"),
            ("203.0.113.7", "203.0.113.7"),
            ("=HYPERLINK(\"http://e\")", "\"'=HYPERLINK(\"\"http://e\"\")\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1", "\"' =1\""),
            ("\t=1", "\u{fffd}=1"),
            ("＝1", "\"'＝1\""),
            ("a,b\r\nc", "\"a,b\u{fffd}\u{fffd}c\""),
            ("a\"b", "\"a\"\"b\""),
            ("", ""),
        ] {
            assert_eq!(csv(text), field, "{text:?}");
        }
    }
}
