//! Errors as text.

use std::error::Error;

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors have the words of their source in the middle, before what to do about it.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("no entry")]
        Cause,
        #[error("cannot read it: {source}; ask root")]
        Repeats { source: Box<Nested> },
        #[error("start")]
        Adds { source: Box<Nested> },
    }

    #[test]
    fn each_cause_is_told_once() {
        let repeats = || Box::new(Nested::Repeats { source: Box::new(Nested::Cause) });
        assert_eq!(chain(&*repeats()), "cannot read it: no entry; ask root");
        let twice = Nested::Adds { source: Box::new(Nested::Adds { source: repeats() }) };
        assert_eq!(chain(&twice), "start: cannot read it: no entry; ask root");
    }
}
