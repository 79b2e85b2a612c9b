//! A cache of pages beside a database, filled by whoever renders a page.
//!
//! It needs *eventual*, and no more: what is in it was true once, may be old, and if nothing changes any more, every member comes to
//! show the newest. It asks nobody, so it is as fast as a member's memory and goes on wherever the network does not.
//!
//! Below eventual there is no level that a store could offer. There is what programs do that keep what they have read in a map
//! of their own: nobody tells the map, so it has no bound at all. That is the other half.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;
use uses::{Client, Cluster, Ending, Error, N1, N2, N3, eventually, say, tell};

/// The page that is cached.
const PAGE: &str = "/prices";

fn main() -> ExitCode {
    tell(
        "Three web servers show the same page, which changes once",
        ("Eventual: each asks the cache at the member beside it", shared),
        ("none, each keeps a map of its own", own),
    )
}

/// Where a web server keeps pages that it need not render again.
trait Cache {
    fn look_up(&mut self, page: &str) -> Result<Option<String>, Error>;
    fn keep(&mut self, page: &str, text: &str) -> Result<(), Error>;
}

/// At the member beside the web server.
struct Shared(Client);

impl Cache for Shared {
    fn look_up(&mut self, page: &str) -> Result<Option<String>, Error> {
        self.0.get(page)
    }

    fn keep(&mut self, page: &str, text: &str) -> Result<(), Error> {
        self.0.put(page, text)
    }
}

/// In the web server itself.
#[derive(Default)]
struct Own(BTreeMap<String, String>);

impl Cache for Own {
    fn look_up(&mut self, page: &str) -> Result<Option<String>, Error> {
        Ok(self.0.get(page).cloned())
    }

    fn keep(&mut self, page: &str, text: &str) -> Result<(), Error> {
        self.0.insert(page.into(), text.into());
        Ok(())
    }
}

/// What a web server shows: the cached page, or else a new one from the database, which it keeps.
fn show(cache: &mut impl Cache, database: &str) -> Result<String, Error> {
    if let Some(text) = cache.look_up(PAGE)? {
        return Ok(text);
    }
    let text = format!("bread costs {database}");
    cache.keep(PAGE, &text)?;
    Ok(text)
}

/// The page changes while the third web server is cut off, which is mended at the end.
fn change_the_page(cluster: &Cluster, caches: &mut [impl Cache; 3]) -> Result<(), Error> {
    for cache in caches.iter_mut() {
        show(cache, "2.00")?;
    }
    say!("All three web servers show: bread costs 2.00.");
    cluster.cut_n3_off()?;
    say!(
        "n3 is cut off from n1 and n2. Bread becomes dearer, and the first web server renders the page anew."
    );
    caches[0].keep(PAGE, "bread costs 2.50")?;
    for i in [0, 2] {
        let begun = Instant::now();
        let text = show(&mut caches[i], "2.50")?;
        say!("Web server {} shows: {text} (after {:.1} ms).", i + 1, begun.elapsed().as_secs_f64() * 1e3);
    }
    cluster.heal()?;
    say!("The link is mended.");
    Ok(())
}

fn shared(cluster: &Cluster) -> Result<Ending, Error> {
    cluster.create("pages", "eventual")?;
    let mut caches = [N1, N2, N3].map(|member| Shared(cluster.client(member, "pages")));
    change_the_page(cluster, &mut caches)?;
    let healed = Instant::now();
    for cache in &mut caches {
        eventually("it shows the new page", || Ok(show(cache, "2.50")?.ends_with("2.50").then_some(())))?;
    }
    say!("Every web server shows the new page, {:.0} ms later.", healed.elapsed().as_secs_f64() * 1e3);
    Ok(Ending::Kept("an old page for a while, no page missing, and in the end the newest everywhere"))
}

fn own(cluster: &Cluster) -> Result<Ending, Error> {
    let mut caches: [Own; 3] = Default::default();
    change_the_page(cluster, &mut caches)?;
    // No need to wait for what nobody will bring: not even cutting the link made a difference.
    let text = show(&mut caches[2], "2.50")?;
    say!("Web server 3 shows: {text}. It will as long as it runs.");
    Ok(match text.ends_with("2.50") {
        true => Ending::Kept("somebody has told it"),
        false => Ending::Broken("there is no end to how old a page may be"),
    })
}
