//! What sshd, sshd-session and sshd-auth say, OpenSSH 5 to 10.

mod credential;
mod forms;
mod pam;
mod patched;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::forms::{FORMS, Form, Says};
use super::pattern::{Holes, Phase};
use super::{Decoded, repeated};
use crate::event::{Event, EventKind, Trace};

/// The decoder's name in events.
const NAME: &str = "sshd";

/// The names of the program: the second came with OpenSSH 9.8, the third with 10.0.
const PROGRAMS: [&[u8]; 3] = [b"sshd", b"sshd-session", b"sshd-auth"];

/// The forms in the order of their first bytes, those of one byte in their own order.
struct Index {
    order: [&'static Form; FORMS.len()],
    /// For each first byte where its forms begin in `order`; they end where those of the next begin.
    starts: [usize; 257],
}

static INDEX: Index = index();

const fn index() -> Index {
    let mut index = Index { order: [&FORMS[0]; FORMS.len()], starts: [0; 257] };
    let mut placed = 0;
    let mut byte = 0;
    while byte < 256 {
        index.starts[byte] = placed;
        let mut i = 0;
        while i < FORMS.len() {
            if FORMS[i].pattern.first() as usize == byte {
                index.order[placed] = &FORMS[i];
                placed += 1;
            }
            i += 1;
        }
        byte += 1;
    }
    index.starts[256] = placed;
    index
}

/// Whether the program of that name is sshd. PAM's modules of old logged as `sshd(pam_unix)`.
pub(super) fn is_sshd(program: &[u8]) -> bool {
    let name = memchr::memrchr(b'/', program).map_or(program, |slash| program.split_at(slash + 1).1);
    PROGRAMS.contains(&name) || pam_module(name).is_some()
}

fn pam_module(program: &[u8]) -> Option<&[u8]> {
    program.strip_prefix(b"sshd(pam_")?.strip_suffix(b")")
}

/// What sshd means by `message`.
pub(super) fn decode<'a>(program: &[u8], message: &'a [u8]) -> Decoded<'a> {
    let frame = Frame::strip(message);
    let event = match pam_module(program) {
        Some(module) => pam::message(module, frame.body),
        None => read(&frame),
    };
    match event {
        Some(mut event) => {
            event.repeated = frame.repeated;
            Decoded::Event(event)
        }
        None if !frame.debug && looks_like_failure(frame.body) => Decoded::Unexplained(frame.body),
        None => Decoded::Nothing,
    }
}

/// The forms as the table has them, with the kind that each stands for.
#[cfg(test)]
pub(crate) fn wordings() -> impl Iterator<Item = (EventKind, String)> {
    FORMS.iter().map(|form| (form.kind, form.pattern.wording()))
}

/// What stands around a message.
struct Frame<'a> {
    body: &'a [u8],
    /// Whether the process that deals with clients before they are logged in said it (monitor.c adds ` [preauth]`).
    preauth: bool,
    /// Whether it is at one of the debug levels.
    debug: bool,
    /// N for `message repeated N times: [ … ]`.
    repeated: u32,
}

impl<'a> Frame<'a> {
    fn strip(message: &'a [u8]) -> Frame<'a> {
        let mut frame = Frame { body: message.trim_ascii(), preauth: false, debug: false, repeated: 1 };
        if let Some((times, inner)) = repeated(frame.body) {
            (frame.repeated, frame.body) = (times, inner.trim_ascii());
        }
        if let Some(body) = frame.body.strip_suffix(b" [preauth]") {
            (frame.body, frame.preauth) = (body, true);
        }
        match frame.body {
            [b'e', ..] => frame.body = frame.body.strip_prefix(b"error: ").unwrap_or(frame.body),
            [b'f', ..] => frame.body = frame.body.strip_prefix(b"fatal: ").unwrap_or(frame.body),
            [b'd', b'e', b'b', b'u', b'g', b'1'..=b'3', b':', b' ', body @ ..] => {
                (frame.body, frame.debug) = (body, true);
            }
            _ => {}
        }
        frame
    }
}

/// The event of the first form that fits.
fn read<'a>(frame: &Frame<'a>) -> Option<Event<'a>> {
    let first = usize::from(*frame.body.first()?);
    let forms = INDEX.order.get(*INDEX.starts.get(first)?..*INDEX.starts.get(first + 1)?)?;
    forms.iter().find_map(|form| form.pattern.read(frame.body).and_then(|holes| event(form, &holes, frame)))
}

fn event<'a>(form: &Form, holes: &Holes<'a>, frame: &Frame<'a>) -> Option<Event<'a>> {
    let (attack, trace) = match form.says {
        Says::Read(read) => return read(holes.text),
        Says::Attack(trace) => (true, trace),
        Says::If(hostile) => (hostile(holes.text), Trace::None),
        Says::Info => (false, Trace::None),
        Says::Ending { plain } => {
            let before_login = match holes.phase {
                Phase::BeforeLogin => true,
                Phase::AfterLogin => frame.preauth,
                Phase::Unsaid => frame.preauth || (plain && holes.port.is_some()),
            };
            (before_login, if before_login { Trace::Ending } else { Trace::None })
        }
    };
    Some(Event {
        kind: form.kind,
        source: holes.source,
        sourceless: holes.source.is_none() && !form.pattern.names_the_source(),
        // Where the address is gone sshd writes `UNKNOWN port 65535`.
        port: holes.port.filter(|_| holes.source.is_some()),
        user: borrowed(holes.user),
        invalid_user: holes.invalid_user || form.kind == EventKind::InvalidUser,
        attack,
        trace,
        repeated: 1,
        detail: holes.detail.trim_ascii(),
        decoder: Cow::Borrowed(NAME),
    })
}

/// Whether a client that hung up had nothing left to try: code 14 says so, and JSch says it with code 3. The text begins
/// after the address; before OpenSSH 7.0 with a space.
fn out_of_methods(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    text.starts_with(b"14: ") || (text.starts_with(b"3: ") && text.ends_with(b"Auth fail"))
}

/// An event that says nothing but its kind.
fn blank<'a>(kind: EventKind) -> Event<'a> {
    Event {
        kind,
        source: None,
        sourceless: false,
        port: None,
        user: None,
        invalid_user: false,
        attack: false,
        trace: Trace::None,
        repeated: 1,
        detail: b"",
        decoder: Cow::Borrowed(NAME),
    }
}

fn borrowed(user: Option<&[u8]>) -> Option<Cow<'_, [u8]>> {
    user.map(Cow::Borrowed)
}

/// Whether a message that no form explains should be looked at by the people who keep the forms.
fn looks_like_failure(message: &[u8]) -> bool {
    // What a client sent may be long; sshd's own words come early.
    let start = message.get(..256).unwrap_or(message);
    start.iter().enumerate().any(|(at, first)| {
        let words: &[&[u8]] = match first | 0x20 {
            b'a' => &[b"attack"],
            b'd' => &[b"denied"],
            b'e' => &[b"exceed"],
            b'f' => &[b"fail"],
            b'i' => &[b"invalid", b"illegal"],
            b'n' => &[b"not allowed"],
            b'r' => &[b"refus"],
            _ => &[],
        };
        let here = start.split_at(at).1;
        words.iter().any(|word| here.get(..word.len()).is_some_and(|here| here.eq_ignore_ascii_case(word)))
    })
}
