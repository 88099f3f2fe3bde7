//! The list of what is blocked, on both ends of the control socket: an array in JSON that is made, sent and read in parts, so
//! that neither the controller nor its peer has all of it in memory, and nothing waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

use super::client::ClientError;
use super::{Call, Place, Reply, Request, wire};

/// The controller stops before all is sent.
#[derive(Debug, thiserror::Error)]
#[error("the controller is stopping")]
pub(super) struct Stopping;

/// What is sent as an answer.
pub(super) enum Answer {
    /// In one piece.
    Whole(Full<Bytes>),
    /// The list.
    List(Parts),
}

/// The list on its way out.
pub(super) struct Parts {
    calls: mpsc::Sender<Call>,
    uid: u32,
    state: State,
}

enum State {
    /// This is to be sent, and then what follows at the place.
    Ready(Bytes, Option<Place>),
    Waiting(Pin<Box<dyn Future<Output = Result<State, Stopping>> + Send>>),
    Sent,
}

/// Asks for the list, of which the first part may be all.
pub(super) async fn begin(calls: mpsc::Sender<Call>, uid: u32) -> Result<Answer, Stopping> {
    Ok(match part(calls.clone(), uid, Place::FIRST).await? {
        State::Ready(text, None) => Answer::Whole(text.into()),
        state => Answer::List(Parts { calls, uid, state }),
    })
}

/// Asks for the part that ends at `place`.
async fn part(calls: mpsc::Sender<Call>, uid: u32, place: Place) -> Result<State, Stopping> {
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request: Request::List(place), uid, reply }).await.map_err(|_| Stopping)?;
    let Ok(Reply::List(part)) = answer.await else { return Err(Stopping) };
    let mut text = Vec::new();
    for (number, entry) in part.entries.iter().enumerate() {
        let first = number == 0 && place == Place::FIRST;
        text.extend_from_slice(if first { b"[" } else { b",\n" });
        if let Err(error) = serde_json::to_writer(&mut text, entry) {
            log::error!("write an answer as JSON: {error}");
            return Err(Stopping);
        }
    }
    if part.next.is_none() {
        text.extend_from_slice(if text.is_empty() && place == Place::FIRST { b"[]" } else { b"]" });
    }
    Ok(State::Ready(text.into(), part.next))
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Stopping;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stopping>>> {
        let parts = match self.get_mut() {
            Answer::Whole(whole) => {
                let frame = ready!(Pin::new(whole).poll_frame(context));
                return Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})));
            }
            Answer::List(parts) => parts,
        };
        loop {
            match std::mem::replace(&mut parts.state, State::Sent) {
                State::Ready(text, next) => {
                    if let Some(place) = next {
                        parts.state = State::Waiting(Box::pin(part(parts.calls.clone(), parts.uid, place)));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(text))));
                }
                State::Waiting(mut next) => match next.as_mut().poll(context) {
                    Poll::Ready(state) => parts.state = state?,
                    Poll::Pending => {
                        parts.state = State::Waiting(next);
                        return Poll::Pending;
                    }
                },
                State::Sent => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Whole(whole) => whole.is_end_stream(),
            Answer::List(parts) => matches!(parts.state, State::Sent),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(whole) => whole.size_hint(),
            Answer::List(_) => SizeHint::default(),
        }
    }
}

/// The list on its way in: what is blocked, one by one.
pub struct Blocked {
    pieces: Receiver<Bytes>,
    /// Ends with what came of it.
    reader: Option<JoinHandle<Result<(), ClientError>>>,
    text: Vec<u8>,
    /// How much of the text has been read.
    read: usize,
    failed: bool,
}

impl Blocked {
    pub(super) fn new(pieces: Receiver<Bytes>, reader: JoinHandle<Result<(), ClientError>>) -> Blocked {
        Blocked { pieces, reader: Some(reader), text: Vec::new(), read: 0, failed: false }
    }

    /// Waits until the answer begins.
    pub(super) fn begin(mut self) -> Result<Blocked, ClientError> {
        self.more()?;
        Ok(self)
    }

    /// Waits for more of the text; false at its end.
    fn more(&mut self) -> Result<bool, ClientError> {
        match (self.pieces.recv(), self.reader.take()) {
            (Ok(piece), reader) => {
                self.reader = reader;
                self.text.drain(..self.read);
                self.read = 0;
                self.text.extend_from_slice(&piece);
                Ok(true)
            }
            (Err(_), None) => Ok(false),
            (Err(_), Some(reader)) => match reader.join() {
                Ok(ended) => ended.map(|()| false),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }

    /// The next entry in the text; none where it is not there to its end.
    fn entry(&mut self) -> Result<Option<wire::Entry>, ClientError> {
        let between = |byte: &&u8| b"[,] \n".contains(byte);
        let rest = self.text.get(self.read..).unwrap_or_default();
        self.read += rest.iter().take_while(between).count();
        let rest = self.text.get(self.read..).unwrap_or_default();
        let mut entries = serde_json::Deserializer::from_slice(rest).into_iter();
        match entries.next().transpose() {
            Ok(entry) => {
                self.read += entries.byte_offset();
                Ok(entry)
            }
            Err(error) if error.is_eof() => Ok(None),
            Err(error) => Err(ClientError::Answer(error)),
        }
    }
}

impl Iterator for Blocked {
    type Item = Result<wire::Entry, ClientError>;

    fn next(&mut self) -> Option<Result<wire::Entry, ClientError>> {
        if self.failed {
            return None;
        }
        let found = loop {
            match self.entry() {
                Ok(None) => {}
                found => break found,
            }
            match self.more() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => break Err(error),
            }
        };
        self.failed = found.is_err();
        found.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Vec<Result<String, ClientError>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        pieces.iter().for_each(|piece| sender.send(Bytes::copy_from_slice(piece.as_bytes())).unwrap());
        drop(sender);
        let blocked = Blocked::new(receiver, std::thread::spawn(|| Ok(())));
        blocked.map(|entry| entry.map(|entry| entry.target)).collect()
    }

    fn entry(target: &str) -> String {
        format!(
            r#"{{"target":"{target}","action":"block","expires_at":null,"expires_in_s":null,"created_at":null,"rule":null,
                "reason":"[,] }}","origin":"rule","offences":1,"dropped_packets":0,"dropped_bytes":0}}"#
        )
    }

    #[test]
    fn entries_are_read_however_the_text_is_cut() {
        let text = format!("[{},\n{}, {}]", entry("a"), entry("b"), entry("c"));
        for cut in 0..text.len() {
            let (one, two) = text.split_at(cut);
            let targets: Vec<String> = read(&[one, two]).into_iter().map(Result::unwrap).collect();
            assert_eq!(targets, ["a", "b", "c"], "cut at {cut}");
        }
        assert!(read(&["[]"]).is_empty());
        assert!(matches!(read(&["[{\"a\":7}]"])[..], [Err(ClientError::Answer(_))]));
    }
}
