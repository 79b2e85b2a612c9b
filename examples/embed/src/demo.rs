//! Three replicas, each a process of its own. The leader is killed while money is being paid in, and comes back.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const DEPOSITS: u64 = 300;
/// How long anything may take on a busy machine before the demonstration gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows that nothing is lost; an error if anything was.
pub fn run() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("synod-embed-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let result = show(&directory);
    fs::remove_dir_all(&directory)?;
    result
}

fn show(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut bank = Processes::start(directory)?;
    println!("three members run, and {} leads", name(bank.leader()?));

    let mut book = Book::default();
    bank.pay_in(DEPOSITS / 2, &mut book)?;
    let victim = bank.leader()?;
    bank.kill(victim)?;
    println!("{} deposits were answered; killed {} with SIGKILL", book.answered, name(victim));
    bank.pay_in(DEPOSITS / 2, &mut book)?;
    println!("{} deposits were answered; {} leads now", book.answered, name(bank.leader()?));

    bank.up(victim)?;
    println!("started {} again, with its directory", name(victim));
    for member in 0..3 {
        let total = bank.surely(member, "total")?;
        println!("{} says: {total}", name(member));
        book.check(&total)?;
    }
    println!("nothing that was answered is lost, and nothing was done twice");
    Ok(())
}

/// What the bank's client has been told.
#[derive(Default)]
struct Book {
    answered: u64,
    /// Deposits of which it was never told whether they were made.
    unknown: u64,
}

impl Book {
    /// Compares with what a member says, as in `300 from 300 deposits`: each was of one.
    fn check(&self, said: &str) -> Result<(), Box<dyn Error>> {
        let mut numbers = said.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (money, deposits) = numbers.next().zip(numbers.next()).ok_or("no total was told")?;
        let possible = self.answered..=self.answered + self.unknown;
        if money != deposits || !possible.contains(&deposits) {
            return Err(
                format!("{} were answered and {} unknown, but: {said}", self.answered, self.unknown).into()
            );
        }
        Ok(())
    }
}

/// The members' processes.
struct Processes {
    members: Vec<String>,
    directories: Vec<PathBuf>,
    running: Vec<Option<Process>>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Processes {
    fn start(directory: &Path) -> Result<Processes, Box<dyn Error>> {
        // All ports are held until all are known, so that none is given out twice.
        let ports = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let address = |(i, port): (usize, &TcpListener)| Ok(format!("{}={}", name(i), port.local_addr()?));
        let members = ports.iter().enumerate().map(address).collect::<std::io::Result<Vec<_>>>()?;
        drop(ports);
        let directories = (0..3).map(|i| directory.join(name(i))).collect();
        let mut bank = Processes { members, directories, running: (0..3).map(|_| None).collect() };
        for i in 0..3 {
            bank.up(i)?;
        }
        Ok(bank)
    }

    fn up(&mut self, i: usize) -> Result<(), Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["member", &name(i)])
            .arg(&self.directories[i])
            .args(&self.members)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        self.running[i] = Some(Process { child, input, output });
        Ok(())
    }

    fn kill(&mut self, i: usize) -> Result<(), Box<dyn Error>> {
        let mut process = self.running[i].take().ok_or("it does not run")?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// What a running member answers to a line.
    fn ask(&mut self, i: usize, line: &str) -> Result<String, Box<dyn Error>> {
        let process = self.running[i].as_mut().ok_or("it does not run")?;
        writeln!(process.input, "{line}")?;
        let mut answer = String::new();
        process.output.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// As [`Processes::ask`], until the answer is a good one.
    fn surely(&mut self, i: usize, line: &str) -> Result<String, Box<dyn Error>> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(i, line)?;
            if let Some(said) = answer.strip_prefix("ok ") {
                return Ok(said.to_owned());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} does not do {line:?}: {answer}", name(i)).into());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// The leader that all running members know.
    fn leader(&mut self) -> Result<usize, Box<dyn Error>> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut known = Vec::new();
            for i in 0..3 {
                if self.running[i].is_some() {
                    known.push(self.surely(i, "leader")?);
                }
            }
            let leader =
                (0..3).find(|i| self.running[*i].is_some() && known.iter().all(|said| *said == name(*i)));
            match leader {
                Some(leader) => return Ok(leader),
                None => sleep(Duration::from_millis(20)),
            }
        }
        Err("the members do not agree on a leader".into())
    }

    /// Pays in so many times one, through the running members in turn.
    fn pay_in(&mut self, deposits: u64, book: &mut Book) -> Result<(), Box<dyn Error>> {
        let (begun, before) = (Instant::now(), book.answered);
        let mut turns = (0..3).cycle();
        while book.answered < before + deposits {
            let i = turns.find(|i| self.running[*i].is_some()).ok_or("nobody runs")?;
            match self.ask(i, "deposit savings 1")? {
                said if said.starts_with("ok ") => book.answered += 1,
                // Perhaps it was made: it is not to be asked for again as if it had not been.
                said if said.starts_with("unknown ") => book.unknown += 1,
                said if begun.elapsed() > PATIENCE => return Err(said.into()),
                _ => sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.running.iter_mut().flatten() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn name(i: usize) -> String {
    format!("n{}", i + 1)
}
