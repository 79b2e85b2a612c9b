//! `synod sim costs`: what a command costs each protocol when nothing goes wrong.

use crate::cli;
use crate::sim::known_or_all;
use crate::{Done, Failure};
use serde_json::json;
use synod_sim::costs::{Cost, Costs, VALUE_BYTES, costs};

pub fn run(options: &cli::Costs) -> Done {
    let protocols = known_or_all(&options.protocols)?;
    let mut rows = Vec::new();
    for nodes in &options.nodes {
        for protocol in &protocols {
            let measured = costs(protocol, *nodes, options.commands);
            rows.push(measured.map_err(|e| Failure::Usage(e.to_string()))?);
        }
    }
    if options.json {
        println!("{}", json!({"commands": options.commands, "value-bytes": VALUE_BYTES, "costs": rows}));
        return Ok(());
    }
    println!("without faults, for each of {} commands with {VALUE_BYTES} bytes:", options.commands);
    for members in rows.chunk_by(|a, b| a.nodes == b.nodes) {
        print_table(members);
    }
    Ok(())
}

fn print_table(rows: &[Costs]) {
    let Some(first) = rows.first() else { return };
    println!("\n{:<14}{:<21}{:<32}many outstanding", format!("{} members", first.nodes), "", "one at a time");
    println!(
        "{:<14}{:<21}{:<32}messages, bytes, syncs",
        "", "delays, syncs in seq.", "messages, bytes, syncs"
    );
    for row in rows {
        let Costs { protocol, delays, syncs_in_sequence, alone, together, .. } = row;
        let in_sequence = format!("{delays}, {syncs_in_sequence}");
        println!("{protocol:<14}{in_sequence:<21}{:<32}{}", counts(alone), counts(together));
    }
    println!("of which, one at a time");
    for Costs { protocol, alone, .. } in rows {
        let kinds: Vec<String> =
            alone.kinds.iter().map(|(name, each)| format!("{} {name}", short(*each))).collect();
        println!("{protocol:<14}{}", kinds.join(", "));
    }
}

fn counts(cost: &Cost) -> String {
    format!("{}, {:.0}, {}", short(cost.messages), cost.bytes, short(cost.syncs))
}

/// With up to two decimals.
fn short(figure: f64) -> String {
    let text = format!("{figure:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures_are_short() {
        assert_eq!([6.0, 0.25, 0.1, 10.0, 0.004].map(super::short), ["6", "0.25", "0.1", "10", "0"]);
    }
}
