//! The parameters of a request's path: `name=value&…`, with other bytes than letters, digits and a few signs as `%xx`.

/// A value as it stands in a path.
pub(super) fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(escape).collect()
}

/// The names and values in a path; none where they are not written as such.
pub(super) fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((unescaped(name)?, unescaped(value)?))
        })
        .collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_comes_back() {
        for value in ["", "admin", "a b+c&d=e%", "2001:db8::/32", "\u{1f980}\n"] {
            let text = format!("user={}&limit=5", escaped(value));
            let expected = vec![("user".to_owned(), value.to_owned()), ("limit".to_owned(), "5".to_owned())];
            assert_eq!(parameters(&text), Some(expected), "{text}");
        }
        assert_eq!(parameters(""), Some(Vec::new()));
        for odd in ["a", "a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert_eq!(parameters(odd), None, "{odd}");
        }
    }
}
