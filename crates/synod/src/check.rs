//! `synod check`: which consistency a recorded history has.

use crate::cli;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use synod_check::answer::Answer;
use synod_check::history::History;
use synod_check::judge::{Consistency, Judgement, Object, judge};
use synod_check::linearizable::Limits;
use synod_check::stream::{FollowLimits, Follower, Standing};
use synod_check::{ReadLimits, import, picture, report};

/// The answers' exit codes.
const VALID: u8 = 0;
const INVALID: u8 = 1;
const UNKNOWN: u8 = 2;
/// Also of flags that cannot be understood; see `main`.
pub const UNUSABLE: u8 = 3;

/// How often a followed file is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// Judges, and says with which code to end.
pub fn run(options: &cli::Check) -> ExitCode {
    let judged = if options.follow { follow(options) } else { check(options) };
    ExitCode::from(judged.unwrap_or_else(|problem| {
        eprintln!("synod: {problem}");
        UNUSABLE
    }))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}

fn check(options: &cli::Check) -> Result<u8, String> {
    let shown = options.file.display().to_string();
    let model = named(options.model.as_deref(), "model", Consistency::named, Consistency::names)?;
    let object = named(options.object.as_deref(), "object", Object::named, Object::names)?;
    // A mistake in the flags is told before a long file is read.
    required(&options.judging)?;
    let (history, format) = import::any(open(&options.file)?, ReadLimits::default())
        .map_err(|error| format!("{shown}: {error}"))?;
    let format = Some(format!("{format:?}").to_lowercase());
    judge_and_tell(&history, &Asked { shown, format, object, model }, &options.judging)
}

fn required(judging: &cli::Judging) -> Result<Option<Consistency>, String> {
    named(judging.require.as_deref(), "model", Consistency::named, Consistency::names)
}

/// What is asked of a history.
#[derive(Default)]
pub struct Asked {
    /// Its name, for people.
    pub shown: String,
    /// The format that it was read from, if it was read.
    pub format: Option<String>,
    /// What it is of, unless its header says so or it is to be guessed.
    pub object: Option<Object>,
    /// The only model to decide.
    pub model: Option<Consistency>,
}

/// Judges a history, prints and writes the judgement; gives back the exit code.
pub fn judge_and_tell(history: &History, asked: &Asked, judging: &cli::Judging) -> Result<u8, String> {
    let Asked { shown, format, object, model } = asked;
    let required = required(judging)?;
    let limits = Limits { bytes_max: judging.memory_mib.saturating_mul(1 << 20), ..Limits::default() };
    let started = Instant::now();
    let deadline = started + judging.time;
    let mut stop = || Instant::now() >= deadline;
    let judged = |model, stop: &mut dyn FnMut() -> bool| {
        judge(history, *object, model, &limits, stop).map_err(|error| format!("{shown}: {error}"))
    };
    let judgement = judged(*model, &mut stop)?;
    let bar = required.or(*model).or_else(|| judgement.findings.first().map(|finding| finding.model));
    // A bar that is not part of what is asked for anyway is asked for alone.
    let extra = match bar.filter(|bar| judgement.of(*bar).is_none()) {
        Some(bar) => Some(judged(Some(bar), &mut stop)?),
        None => None,
    };
    let took = started.elapsed();
    let code = code(&extra, &judgement, bar);
    write_files(judging, history, &judgement, extra.as_ref(), shown, bar)?;
    if judging.json {
        let mut json = report::json(history, &judgement);
        json["file"] = shown.as_str().into();
        json["format"] = format.as_deref().into();
        json["millis"] = (took.as_secs_f64() * 1e3).into();
        json["required"] = bar.map(|bar| bar.name()).into();
        json["exit"] = code.into();
        say(&format!("{json}\n"));
    } else {
        say(&format!("{shown}: {}", report::text(&judgement)));
        if let Some(bar) = bar {
            let verdict = ["valid", "invalid", "unknown"][usize::from(code)];
            let millis = took.as_secs_f64() * 1e3;
            say(&format!("{verdict}: {bar} was required ({millis:.1} ms after reading)\n"));
        }
    }
    Ok(code)
}

/// Prints. Whoever reads it may have seen enough (`| head`), which changes no verdict.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn code(extra: &Option<Judgement>, judgement: &Judgement, bar: Option<Consistency>) -> u8 {
    let of = |bar: Consistency| extra.as_ref().and_then(|extra| extra.of(bar)).or_else(|| judgement.of(bar));
    match bar.and_then(of).map(|finding| &finding.answer) {
        Some(Answer::Yes(_)) => VALID,
        Some(Answer::No(_)) => INVALID,
        Some(Answer::Unknown(_)) | None => UNKNOWN,
    }
}

fn named<T, N: Iterator<Item = &'static str>>(
    name: Option<&str>,
    what: &str,
    of: fn(&str) -> Option<T>,
    names: fn() -> N,
) -> Result<Option<T>, String> {
    let Some(name) = name else { return Ok(None) };
    let known =
        || format!("there is no {what} {name:?}; there are {}", names().collect::<Vec<_>>().join(", "));
    of(name).map(Some).ok_or_else(known)
}

fn write_files(
    options: &cli::Judging,
    history: &History,
    judgement: &Judgement,
    extra: Option<&Judgement>,
    shown: &str,
    required: Option<Consistency>,
) -> Result<(), String> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = &options.html {
        write(path, picture::html(history, judgement, shown))?;
    }
    if let Some(path) = &options.junit {
        let required: Vec<Consistency> = required.into_iter().collect();
        // It fails where the exit code does.
        write(path, report::junit(extra.unwrap_or(judgement), shown, &required))?;
    }
    Ok(())
}

/// Follows a file while it grows, or standard input until it ends.
fn follow(options: &cli::Check) -> Result<u8, String> {
    let shown = options.file.display().to_string();
    let mut input = open(&options.file)?;
    let mut follower = Follower::new(FollowLimits::default());
    let mut partial = Vec::new();
    let (mut quiet_since, mut told) = (Instant::now(), Instant::now());
    let stdin = options.file.as_os_str() == "-";
    while follower.standing() == Standing::Yes {
        let bound = ReadLimits::default().line_bytes_max;
        let read = input.by_ref().take(bound).read_until(b'\n', &mut partial);
        let read = read.map_err(|error| format!("{shown}: {error}"))?;
        if partial.len() as u64 >= bound {
            return Err(format!("{shown}: a line is longer than {bound} bytes"));
        }
        if partial.last() == Some(&b'\n') {
            let line = std::str::from_utf8(&partial).map_err(|error| format!("{shown}: {error}"))?;
            follower.line(line).map_err(|error| format!("{shown}: {error}"))?;
            partial.clear();
        }
        if read > 0 {
            quiet_since = Instant::now();
            continue;
        }
        if stdin || options.idle.is_some_and(|idle| quiet_since.elapsed() >= idle) {
            break;
        }
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("{shown}: {} operations, linearizable so far", follower.operations());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
    follower.finish();
    let operations = follower.operations();
    Ok(match follower.standing() {
        Standing::Yes => {
            say(&format!("{shown}: {operations} operations, linearizable\n"));
            VALID
        }
        Standing::No { line, words } => {
            say(&format!("{shown}: line {line}: not linearizable: {words}\n"));
            INVALID
        }
        Standing::Unknown { line, words } => {
            say(&format!("{shown}: line {line}: unknown: {words}; linearizable until there\n"));
            UNKNOWN
        }
    })
}
