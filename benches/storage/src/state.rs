//! The engines under a member's workload: load all keys, overwrite at random in batches of three sizes, scan,
//! get, be killed in the middle of writing, and come back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::engine::{self, Engine};
use crate::measure::{Used, median, noise, resident_kib, scatter, threads};
use crate::{Arguments, Result};

const RECORD_BYTES: usize = 300;
const LOAD_BATCH: u64 = 256;
const BATCHES: [u64; 3] = [1, 16, 256];
const PUTS_PER_BATCH_SIZE: u64 = 100_000;
const SCANS: u64 = 2_000;
const SCAN_KEYS: usize = 100;
const GETS: u64 = 100_000;
const SIGKILL: i32 = 9;
/// How long a child overwrites before it is killed.
const UNTIL_KILL: Duration = Duration::from_millis(1500);

/// The n-th put (from 1) goes to this key: the first `keys` of them to each key once, scattered, the
/// rest anywhere.
fn key_of_put(index: u64, keys: u64) -> u64 {
    if index <= keys { index - 1 } else { scatter(index) % keys }
}

/// From 9 to 32 bytes, scattered over the key space.
fn key(id: u64) -> Vec<u8> {
    let mut key = vec![1];
    key.extend_from_slice(&scatter(id).to_be_bytes());
    key.resize(9 + (id % 24) as usize, b'k');
    key
}

/// Which put wrote it, then noise.
fn record(index: u64, noise: &[u8]) -> Vec<u8> {
    let mut record = index.to_be_bytes().to_vec();
    let place = (scatter(index) % 4096) as usize;
    record.extend_from_slice(&noise[place..place + RECORD_BYTES - 8]);
    record
}

/// Runs every engine `rounds` times and prints the medians.
pub fn compare(arguments: &Arguments) -> Result<()> {
    let rounds = if arguments.rounds == 0 { 3 } else { arguments.rounds };
    let names: Vec<&str> = engine::NAMES
        .into_iter()
        .filter(|name| match &arguments.only {
            Some(only) => only.split(',').any(|one| one == *name),
            None => *name != engine::FJALL_ONE_WORKER,
        })
        .collect();
    // By figure, then by engine: the rounds' values.
    let mut figures: Vec<(String, BTreeMap<&str, Vec<f64>>)> = Vec::new();
    for round in 0..rounds {
        for name in &names {
            eprintln!("round {} of {rounds}: {name}", round + 1);
            for (figure, value) in one(name, arguments)? {
                // At once, so that a run which is cut short still leaves what it measured.
                eprintln!("  {figure}={value:.1}");
                if !figures.iter().any(|(known, _)| *known == figure) {
                    figures.push((figure.clone(), BTreeMap::new()));
                }
                let (_, values) = figures.iter_mut().find(|(known, _)| *known == figure).expect("just added");
                values.entry(name).or_default().push(value);
            }
        }
    }
    print!("| figure (median of {rounds}) |");
    names.iter().for_each(|name| print!(" {name} |"));
    println!("\n|---|{}", "---|".repeat(names.len()));
    for (figure, values) in &mut figures {
        print!("| {figure} |");
        for name in &names {
            match values.get_mut(name) {
                Some(values) => {
                    assert_eq!(values.len(), rounds, "{name} has no {figure} in some round");
                    print!(" {:.1} |", median(values));
                }
                None => print!(" – |"),
            }
        }
        println!();
    }
    Ok(())
}

/// One engine, once: figures in the order in which they were taken.
fn one(name: &str, arguments: &Arguments) -> Result<Vec<(String, f64)>> {
    let dir = arguments.dir.join(name);
    let _ = std::fs::remove_dir_all(&dir);
    let dir_text = dir.to_str().ok_or("the directory's name is not UTF-8")?;
    let keys = arguments.keys.to_string();
    let spawn = |task: &str| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["child", task, name, dir_text, &keys]);
        command.stdout(Stdio::piped()).spawn()
    };
    let mut figures = Vec::new();
    let mut reached_the_end = false;
    let mut writer = spawn("write")?;
    for line in BufReader::new(writer.stdout.take().expect("piped")).lines() {
        let line = line?;
        if line == "writing" {
            reached_the_end = true;
            break;
        }
        figures.push(figure(&line)?);
    }
    if reached_the_end {
        std::thread::sleep(UNTIL_KILL);
        writer.kill()?;
    }
    // A writer that ended before it was killed here measured only a part: its round must not count.
    let ended = writer.wait()?;
    if !reached_the_end || ended.signal() != Some(SIGKILL) {
        return Err(format!("{name}: the writer ended by itself, {ended}").into());
    }
    figures.push(("disk, MiB".into(), disk_bytes(&dir)? as f64 / (1 << 20) as f64));
    if name != "memory" {
        let checker = spawn("check")?.wait_with_output()?;
        if !checker.status.success() {
            return Err(format!("{name} did not come back as it was").into());
        }
        for line in String::from_utf8(checker.stdout)?.lines() {
            figures.push(figure(line)?);
        }
    }
    std::fs::remove_dir_all(&dir).or_else(|error| if dir.exists() { Err(error) } else { Ok(()) })?;
    Ok(figures)
}

fn figure(line: &str) -> Result<(String, f64)> {
    let (name, value) = line.rsplit_once('=').ok_or_else(|| format!("a child said {line:?}"))?;
    Ok((name.to_owned(), value.parse()?))
}

fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    if dir.exists() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
        }
    }
    Ok(bytes)
}

/// The child's side of [`one`].
pub fn child(words: &[String]) -> Result<()> {
    let [task, name, dir, keys] = words else {
        return Err("child: task, engine, directory, keys".into());
    };
    let keys: u64 = keys.parse()?;
    let before_kib = resident_kib();
    let began = Instant::now();
    let mut engine = engine::open(name, Path::new(dir))?;
    let opened = began.elapsed();
    match task.as_str() {
        "write" => {
            std::thread::sleep(Duration::from_millis(300));
            println!("idle memory of a fresh engine, MiB={}", (resident_kib() - before_kib) as f64 / 1024.0);
            println!("threads={}", threads() - 1);
            write(engine.as_mut(), keys)
        }
        "check" => {
            println!("reopening after kill -9, ms={}", opened.as_secs_f64() * 1e3);
            println!("memory after reopening, MiB={}", (resident_kib() - before_kib) as f64 / 1024.0);
            check(engine.as_ref(), keys)
        }
        _ => Err(format!("child: no task {task}").into()),
    }
}

fn write(engine: &mut dyn Engine, keys: u64) -> Result<()> {
    let noise = noise(8192);
    let mut index = 0;
    let mut puts = |engine: &mut dyn Engine, batch: u64, count: u64, name: &str| -> Result<()> {
        let before = Used::now();
        for _ in 0..count / batch {
            let batch: Vec<_> = (index + 1..=index + batch)
                .map(|index| (key(key_of_put(index, keys)), record(index, &noise)))
                .collect();
            index += batch.len() as u64;
            engine.apply(&batch, index)?;
        }
        let wall = before.at.elapsed();
        engine.settle()?;
        let after = Used::now();
        let per_put = |total: f64| total / count as f64;
        println!("{name}: wall µs/put={}", per_put(wall.as_secs_f64() * 1e6));
        println!(
            "{name}: processor µs/put={}",
            per_put((after.processor - before.processor).as_secs_f64() * 1e6)
        );
        println!("{name}: bytes written/put={}", per_put((after.written - before.written) as f64));
        Ok(())
    };
    puts(engine, LOAD_BATCH, keys.next_multiple_of(LOAD_BATCH), "load by 256")?;
    for batch in BATCHES {
        puts(engine, batch, PUTS_PER_BATCH_SIZE.next_multiple_of(batch), &format!("overwrite by {batch}"))?;
    }
    println!("memory after the puts, MiB={}", resident_kib() as f64 / 1024.0);

    let before = Used::now();
    for number in 0..GETS {
        let found = engine.get(&key(scatter(number) % keys))?;
        assert!(found.is_some(), "a loaded key is gone");
    }
    let per = |before: &Used, count: u64| before.at.elapsed().as_secs_f64() * 1e6 / count as f64;
    println!("random get, µs={}", per(&before, GETS));
    let before = Used::now();
    for number in 0..SCANS {
        engine.scan(&key(scatter(number) % keys), SCAN_KEYS, &mut |key, value| {
            std::hint::black_box((key, value));
        })?;
    }
    println!("scan of {SCAN_KEYS} keys, µs={}", per(&before, SCANS));
    println!("memory after the reads, MiB={}", resident_kib() as f64 / 1024.0);

    println!("writing");
    loop {
        let batch: Vec<_> = (index + 1..=index + 16)
            .map(|index| (key(key_of_put(index, keys)), record(index, &noise)))
            .collect();
        index += 16;
        engine.apply(&batch, index)?;
    }
}

/// Compares all data with what the applied index says must be there.
fn check(engine: &dyn Engine, keys: u64) -> Result<()> {
    let applied = engine.applied()?;
    let noise = noise(8192);
    let mut last_put = vec![0_u64; keys as usize];
    for index in 1..=applied {
        last_put[key_of_put(index, keys) as usize] = index;
    }
    let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (id, &index) in last_put.iter().enumerate().filter(|(_, index)| **index > 0) {
        expected.insert(key(id as u64), index);
    }
    let mut found = 0_usize;
    let mut wrong = 0_usize;
    engine.scan(&[1], usize::MAX, &mut |key, value| {
        found += 1;
        wrong += usize::from(expected.get(key).is_none_or(|&index| record(index, &noise) != value));
    })?;
    if wrong > 0 || found != expected.len() {
        return Err(format!("applied {applied}: {wrong} wrong records, {found} of {}", expected.len()).into());
    }
    println!("kept of the puts before kill -9, thousands={}", applied as f64 / 1e3);
    Ok(())
}
