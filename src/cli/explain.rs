//! Why a request goes, waits or went where it does, for people.

use serde_json::Value;

/// The terms of a cost: how they are called, and in the answer.
const TERMS: [(&str, &str); 6] = [
    ("wait", "wait_s"),
    ("switch", "switch_s"),
    ("load", "load_s"),
    ("run", "run_s"),
    ("price", "price_s"),
    ("explore", "explore_s"),
];

/// Prints an explanation: a sentence, then every endpoint with those terms that are not 0 everywhere.
pub(super) fn print(told: &Value) {
    println!("{}", sentence(told));
    let candidates = || told["candidates"].as_array().into_iter().flatten();
    let counts =
        |key: &str| candidates().any(|c| c["terms"][key].as_f64().is_some_and(|s| s != 0.0));
    let terms: Vec<_> = TERMS.iter().filter(|(_, key)| counts(key)).collect();
    print!("{:<28} {:>6} {:>7}", "endpoint", "weight", "used");
    for (name, _) in &terms {
        print!(" {name:>9}");
    }
    if !terms.is_empty() {
        print!(" {:>9}", "seconds");
    }
    println!("  verdict");
    for candidate in candidates() {
        let used = format!("{}/{}", candidate["used"], candidate["slots"]);
        print!(
            "{:<28} {:>6} {used:>7}",
            candidate["endpoint"].as_str().unwrap_or_default(),
            candidate["weight"]
        );
        let seconds = |key: &str| match candidate["terms"][key].as_f64() {
            Some(seconds) => print!(" {seconds:>9.1}"),
            None => print!(" {:>9}", "-"),
        };
        terms.iter().for_each(|(_, key)| seconds(key));
        if !terms.is_empty() {
            seconds("total_s");
        }
        let verdict = match candidate["excluded"].as_str() {
            Some(why) => why,
            None if candidate["chosen"] == true => "picked",
            None if candidate["room"] == false => "busy",
            None => "",
        };
        println!("  {verdict}");
    }
}

fn sentence(told: &Value) -> String {
    let text = |key: &str| told[key].as_str().unwrap_or_default();
    let seconds = |key: &str| told[key].as_f64().unwrap_or_default();
    let about = format!(
        "class {} of {}, tenant {}, policy {}",
        text("class"),
        text("service"),
        text("tenant"),
        text("policy")
    );
    match (text("state"), told["would_pick"].as_str()) {
        ("decided", got) => {
            let rule = match told["rule"]["rule"].as_str().unwrap_or_default() {
                "matched" => "matched with all who waited",
                "in_turn" => "one like it was to go there, and it came first",
                "new" => "nothing like it ever ran, and one goes first to find out",
                "most_lost" => "it lost most by waiting",
                "out_of_patience" => "it had waited beside a free slot for as long as it may",
                _ => "picked by the policy",
            };
            format!(
                "{about}: it went to {} {:.0} s ago, after {:.1} s ({rule})",
                got.unwrap_or("an endpoint that left"),
                seconds("ago_s"),
                seconds("waited_s")
            )
        }
        ("waits", _) => format!(
            "{about}: it waits for {:.0} s now; {} go before it, {:.0} s of work",
            seconds("waited_s"),
            told["before"],
            seconds("before_s")
        ),
        (_, Some(pick)) => format!(
            "{about}: it would go to {pick}; {} waiting",
            told["waiting"]
        ),
        _ => format!("{about}: it would wait; {} waiting", told["waiting"]),
    }
}
