//! The thread that follows a file: it sleeps in `poll(2)` until inotify or the daemon has something to say.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::follower::{Follower, Trouble};
use super::outbox::{Outbox, Stopped};
use super::{Position, Records};

/// How often the file is looked at although inotify is silent: on a network file system it does not tell of what
/// another host writes.
const RECHECK: Duration = Duration::from_secs(10);

/// How often the file is looked at where inotify cannot be had.
const WITHOUT_INOTIFY: Duration = Duration::from_secs(1);

/// How long a file may be gone before that is said: rotation renames it a moment before it makes the new one.
const GRACE: Duration = Duration::from_secs(1);

/// Follows `path` until `outbox` or `wake` says that it is over.
pub(super) fn run(path: &Path, from: Option<Position>, outbox: &mut Outbox, wake: &io::PipeReader) {
    // The one way to end is the daemon's wish, and it knows of that.
    let Err(Stopped) = follow(path, from, outbox, wake);
}

fn follow(
    path: &Path,
    from: Option<Position>,
    outbox: &mut Outbox,
    wake: &io::PipeReader,
) -> Result<std::convert::Infallible, Stopped> {
    let mut follower = Follower::new(path, from.as_ref());
    if from.is_some() {
        outbox.begun();
    }
    let mut watches = Watches::new(path);
    let mut renew = true;
    let mut missing_since = None;
    // Until everything that stands in a file is read, its lines may be of any age: at first, and in whatever comes in its place.
    let mut live = false;
    loop {
        let open = follower.id();
        let read = read_all(&mut follower, &mut live, outbox)?;
        outbox.begun();
        if renew || follower.id() != open {
            renew = false;
            if watches.renew(&follower) {
                // What happened before a watch was there was told to nobody.
                follower.look();
                continue;
            }
        }

        let mut timeout = if watches.fault.is_some() { WITHOUT_INOTIFY } else { RECHECK };
        if !matches!(read, Err(Trouble::Missing { .. })) {
            missing_since = None;
        }
        match (read, &watches.fault) {
            (Err(trouble), _) => {
                let left = match trouble {
                    Trouble::Missing { .. } => {
                        GRACE.saturating_sub(missing_since.get_or_insert_with(Instant::now).elapsed())
                    }
                    _ => Duration::ZERO,
                };
                if left.is_zero() {
                    outbox.trouble(trouble.to_string())?;
                } else {
                    timeout = left;
                }
            }
            (Ok(()), Some(fault)) => outbox.trouble(fault.clone())?,
            (Ok(()), None) => outbox.well()?,
        }

        live = true;
        match watches.wait(wake, timeout) {
            Woken::Stop => return Err(Stopped),
            Woken::Written => {}
            Woken::Changed => {
                follower.look();
                renew = true;
            }
        }
    }
}

fn read_all(
    follower: &mut Follower,
    live: &mut bool,
    outbox: &mut Outbox,
) -> Result<Result<(), Trouble>, Stopped> {
    loop {
        match follower.read_available() {
            Ok(Some(piece)) => {
                *live &= !piece.lines.is_empty();
                outbox.batch(Records::Lines(piece.lines), piece.position, *live, piece.cut)?;
            }
            Ok(None) => return Ok(Ok(())),
            Err(trouble) => return Ok(Err(trouble)),
        }
    }
}

/// What ended the wait.
enum Woken {
    Stop,
    /// The open file, or the one at its path, was written to or truncated; nothing else happened.
    Written,
    /// Anything else, the end of the time included.
    Changed,
}

/// The inotify watches: on the open file, on the file at the path, and on the directories where the path would change.
struct Watches {
    inotify: Option<Inotify>,
    held: Vec<WatchDescriptor>,
    /// Why there is no (full) watch, in words with the remedy.
    fault: Option<String>,
    path: PathBuf,
}

impl Watches {
    fn new(path: &Path) -> Watches {
        Watches { inotify: None, held: Vec::new(), fault: None, path: path.to_owned() }
    }

    /// Watches what is there at present, and says whether any of it was not watched before.
    fn renew(&mut self, follower: &Follower) -> bool {
        let fault = |error: io::Error| {
            format!(
                "cannot watch {}: {error}; reading it once a second instead (raise fs.inotify.max_user_instances \
                 and fs.inotify.max_user_watches with sysctl)",
                self.path.display()
            )
        };
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            None => match Inotify::init() {
                Ok(inotify) => self.inotify.insert(inotify),
                Err(error) => {
                    self.fault = Some(fault(error));
                    return false;
                }
            },
        };

        let file = WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::MOVE_SELF | WatchMask::DELETE_SELF;
        let directory = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::MOVE_SELF
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        // The open file may have no name by now.
        let open = follower.file().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let files = open.into_iter().chain([self.path.clone()]).map(|path| (path, file));
        let directories = directories(follower.path()).into_iter().map(|path| (path, directory));

        let mut present = Vec::new();
        let mut failure = None;
        for (path, mask) in files.chain(directories) {
            match inotify.watches().add(&path, mask) {
                Ok(watch) => present.push(watch),
                // What is not there or cannot be read is told of by the directory's watch, or by reading.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => failure = Some(fault(error)),
            }
        }
        self.fault = failure;
        for watch in self.held.iter().filter(|watch| !present.contains(watch)) {
            // The kernel has taken it off already where the file is gone.
            inotify.watches().remove(watch.clone()).ok();
        }
        let news = present.iter().any(|watch| !self.held.contains(watch));
        self.held = present;
        news
    }

    /// Sleeps until something happens, `timeout` at most.
    fn wait(&mut self, wake: &io::PipeReader, timeout: Duration) -> Woken {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        if let Some(inotify) = &self.inotify {
            fds.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(0) => return Woken::Changed,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                // Out of memory is all that can go wrong here; the time is given to pass.
                log::warn!("waiting for {} to change: {error}", self.path.display());
                std::thread::sleep(Duration::from_millis(100));
                return Woken::Changed;
            }
        }
        // The daemon says nothing through the pipe but that it closes it.
        if fds.first().and_then(PollFd::any).unwrap_or(false) {
            return Woken::Stop;
        }
        self.events()
    }

    /// What the kernel has to tell.
    fn events(&mut self) -> Woken {
        let mut woken = Woken::Written;
        let Some(inotify) = &mut self.inotify else { return Woken::Changed };
        let mut buffer = [0; 4096];
        loop {
            match inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        if event.mask != EventMask::MODIFY {
                            woken = Woken::Changed;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return woken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("reading what inotify tells of {}: {error}", self.path.display());
                    self.inotify = None;
                    self.held.clear();
                    return Woken::Changed;
                }
            }
        }
    }
}

/// The directories in which the path would change: the nearest above it that exists, and, where it is a symbolic link,
/// the one that holds the real file.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    };
    let mut above = parent(path);
    while !above.is_dir() && above.parent().is_some() {
        above = parent(&above);
    }
    let real = path.canonicalize().ok().map(|real| parent(&real));
    std::iter::once(above).chain(real).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use tempfile::TempDir;
    use tokio::sync::mpsc;
    use xdpban_engine::record::Format;

    use super::super::{Report, Running, spawn, start};
    use super::*;
    use crate::config::SourceConfig;

    /// A running source and the log that it follows.
    struct Bench {
        directory: TempDir,
        running: Running,
        reports: mpsc::Receiver<Report>,
        saved: Option<Position>,
    }

    impl Bench {
        fn start(directory: TempDir, log: &str, from: Option<Position>, capacity: usize) -> Bench {
            let (sender, reports) = mpsc::channel(capacity);
            let config = SourceConfig::File {
                path: directory.path().join(log),
                format: Format::Syslog,
                program: None,
            };
            let running = start(3, &config, from, sender).unwrap();
            Bench { directory, running, reports, saved: None }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = fs::File::options().append(true).create(true).open(self.path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn next(&mut self) -> Report {
            // Less than the time after which the file is looked at without a word from inotify.
            let deadline = Instant::now() + RECHECK / 2;
            loop {
                match self.reports.try_recv() {
                    Ok(report) => return report,
                    Err(error) => assert!(Instant::now() < deadline, "no report in time: {error}"),
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }

        /// Waits until all of `text` was read.
        fn expect(&mut self, text: &str) {
            let mut read = Vec::new();
            while read.len() < text.len() {
                match self.next() {
                    Report::Batch(batch) => {
                        assert_eq!(batch.source, 3);
                        let Records::Lines(lines) = batch.records else { panic!("a file has lines") };
                        read.extend_from_slice(&lines);
                        self.saved = Some(batch.position);
                    }
                    other => panic!("expected {text:?}, not {other:?}"),
                }
            }
            assert_eq!(String::from_utf8_lossy(&read), text);
        }

        /// Passes over what only tells a position.
        fn report(&mut self) -> Report {
            loop {
                match self.next() {
                    Report::Batch(batch) if batch.records == Records::Lines(bytes::Bytes::new()) => {}
                    other => return other,
                }
            }
        }

        fn settle(&mut self) {
            // The first report says where reading began; from there on the file is followed.
            assert!(matches!(self.next(), Report::Batch(_)));
        }
    }

    #[test]
    fn inotify_tells_of_every_change() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("log"), "old\n").unwrap();
        let mut bench = Bench::start(directory, "log", None, 16);
        bench.settle();
        bench.append("log", "1\n");
        bench.expect("1\n");
        bench.append("log", "2");
        bench.append("log", "\n");
        bench.expect("2\n");
        fs::rename(bench.path("log"), bench.path("log.1")).unwrap();
        bench.append("log", "");
        bench.append("log.1", "3\n");
        bench.expect("3\n");
        bench.append("log", "4\n");
        bench.expect("4\n");
        fs::File::options().write(true).open(bench.path("log")).unwrap().set_len(0).unwrap();
        bench.append("log", "5\n");
        bench.expect("5\n");
        fs::remove_file(bench.path("log")).unwrap();
        bench.append("log", "6\n");
        bench.expect("6\n");

        let Bench { directory, running, saved, .. } = bench;
        running.stop().unwrap();
        let mut bench = Bench::start(directory, "log", saved, 16);
        bench.append("log", "7\n");
        bench.expect("7\n");
        bench.running.stop().unwrap();
    }

    #[test]
    fn a_directory_that_does_not_exist_is_waited_for() {
        let mut bench = Bench::start(tempfile::tempdir().unwrap(), "a/b/log", None, 16);
        let Report::Trouble { source: 3, message } = bench.next() else { panic!() };
        assert!(message.contains("does not exist; waiting for it"), "{message}");
        fs::create_dir(bench.path("a")).unwrap();
        fs::create_dir(bench.path("a/b")).unwrap();
        bench.append("a/b/log", "1\n");
        let mut reports = [bench.report(), bench.report()];
        reports.sort_by_key(|report| matches!(report, Report::Well { .. }));
        assert!(matches!(&reports[0], Report::Batch(batch) if batch.records == Records::Lines("1\n".into())));
        assert_eq!(reports[1], Report::Well { source: 3 });

        // The whole directory goes, and comes back.
        fs::rename(bench.path("a/b"), bench.path("gone")).unwrap();
        assert!(matches!(bench.report(), Report::Trouble { .. }));
        fs::create_dir(bench.path("a/b")).unwrap();
        bench.append("a/b/log", "2\n");
        assert!(
            matches!(bench.report(), Report::Batch(batch) if batch.records == Records::Lines("2\n".into()))
        );
        bench.running.stop().unwrap();
    }

    #[test]
    fn a_moment_without_the_file_is_no_trouble() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("log"), "").unwrap();
        let mut bench = Bench::start(directory, "log", None, 16);
        bench.settle();
        fs::rename(bench.path("log"), bench.path("log.1")).unwrap();
        std::thread::sleep(GRACE / 5);
        bench.append("log", "1\n");
        bench.expect("1\n");
        bench.running.stop().unwrap();
    }

    #[test]
    fn what_stands_in_a_file_that_takes_the_place_of_another_may_be_old() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("log"), "1\n").unwrap();
        let mut bench = Bench::start(directory, "log", None, 16);
        bench.settle();
        let live = |bench: &mut Bench, text: &str| loop {
            let Report::Batch(batch) = bench.next() else { panic!() };
            if batch.records == Records::Lines(text.to_owned().into()) {
                break batch.live;
            }
        };
        // It reads twice before it waits.
        std::thread::sleep(Duration::from_millis(50));
        bench.append("log", "2\n");
        assert!(live(&mut bench, "2\n"));
        bench.append("edited", "1\n2\n");
        fs::rename(bench.path("edited"), bench.path("log")).unwrap();
        assert!(!live(&mut bench, "1\n2\n"));
        std::thread::sleep(Duration::from_millis(50));
        bench.append("log", "3\n");
        assert!(live(&mut bench, "3\n"));
        // In its own place. It is never empty, in which case what comes next would be new.
        let edited = fs::OpenOptions::new().write(true).open(bench.path("log")).unwrap();
        (&edited).write_all(b"0\n").unwrap();
        edited.set_len(2).unwrap();
        assert!(!live(&mut bench, "0\n"));
        bench.running.stop().unwrap();
    }

    #[test]
    fn a_full_channel_holds_the_source_up_and_does_not_keep_it_from_stopping() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("log"), "").unwrap();
        let mut bench = Bench::start(directory, "log", None, 1);
        bench.settle();
        for number in 0..50 {
            bench.append("log", &format!("{number}\n"));
            std::thread::sleep(Duration::from_millis(1));
        }
        bench.expect(&(0..50).map(|number| format!("{number}\n")).collect::<String>());
        bench.append("log", "1\n");
        std::thread::sleep(Duration::from_millis(50));
        bench.append("log", "2\n");
        std::thread::sleep(Duration::from_millis(50));
        let started = Instant::now();
        bench.running.stop().unwrap();
        assert!(started.elapsed() < Duration::from_millis(200));
    }

    #[test]
    fn at_rest_it_costs_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "").unwrap();
        let (sender, mut reports) = mpsc::channel(1);
        // A name that no other test's thread has.
        let running =
            spawn("source-at-rest", 0, sender, move |outbox, wake| run(&path, None, outbox, wake)).unwrap();
        assert!(reports.blocking_recv().is_some());
        let task = fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "source-at-rest\n"))
            .unwrap();
        let switches = || {
            let status = fs::read_to_string(task.join("status")).unwrap();
            status.lines().find(|line| line.starts_with("voluntary")).unwrap().to_owned()
        };
        std::thread::sleep(Duration::from_millis(100));
        let before = switches();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(switches(), before);
        running.stop().unwrap();
    }
}
