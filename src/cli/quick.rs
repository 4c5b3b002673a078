use super::run;
use crate::app::{App, Source};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// A gateway from the command line alone.
#[derive(Args)]
pub(super) struct QuickArgs {
    /// A URL to forward to; give it several times
    #[arg(long, required = true, value_name = "URL")]
    to: Vec<String>,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: String,
    /// How many requests each URL works on at once
    #[arg(long, default_value_t = 1, value_name = "N")]
    slots: u32,
    /// Where the admin API listens, or `off`
    #[arg(long, default_value = "127.0.0.1:9900", value_name = "ADDRESS")]
    admin: String,
    /// The kind that knows the API behind the URLs
    #[arg(long, default_value = "http")]
    kind: String,
}

/// Prints the file to keep, and runs it.
pub(super) fn quick(app: &App, args: &QuickArgs) -> ExitCode {
    let kind = app.registry().find_kind(&args.kind);
    let yaml = yaml(args, kind.is_some_and(|kind| kind.keeps));
    println!(
        "# Keep this as conf/tabane.yaml and start it with `tabane run`:\n{yaml}\n# Try: curl http://{}/",
        shown(&args.listen)
    );
    run::run(app, Source::Text(yaml))
}

/// The file to keep. Written by a YAML library, so that whatever was typed is quoted as it must be.
fn yaml(args: &QuickArgs, keeps: bool) -> String {
    let admin = if args.admin == "off" {
        Value::from(false)
    } else {
        json!({"address": args.admin})
    };
    let pool: Vec<Value> = args
        .to
        .iter()
        .map(|url| json!({"url": url_of(url), "slots": args.slots}))
        .collect();
    let mut file = json!({
        "listen": [args.listen],
        "admin": admin,
        "services": {"any": {"kind": args.kind, "pool": pool, "routes": ["/"]}},
    });
    if keeps {
        file["data_dir"] = "./data".into();
    }
    if !is_loopback(&args.listen) {
        // Everybody who reaches the address: the command line names no keys.
        file["access"] = json!({"anonymous": "allow"});
    }
    serde_yaml::to_string(&file).unwrap_or_default()
}

/// `gpu1:8188` is what people type.
fn url_of(typed: &str) -> String {
    let url = if typed.contains("://") {
        typed.to_owned()
    } else {
        format!("http://{typed}")
    };
    url.trim_end_matches('/').to_owned()
}

fn shown(listen: &str) -> String {
    listen.strip_prefix(':').map_or_else(
        || listen.replace("0.0.0.0", "127.0.0.1"),
        |port| format!("127.0.0.1:{port}"),
    )
}

fn is_loopback(listen: &str) -> bool {
    listen
        .parse::<std::net::SocketAddr>()
        .is_ok_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_to_keep_says_what_the_command_line_said() {
        let args = QuickArgs {
            to: vec!["http://gpu1:8188".into(), "gpu2:8188".into()],
            listen: ":8080".into(),
            slots: 2,
            admin: "off".into(),
            kind: "http".into(),
        };
        let text = yaml(&args, true);
        let file: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let pool = &file["services"]["any"]["pool"];
        assert_eq!(pool[1]["url"].as_str(), Some("http://gpu2:8188"), "{text}");
        assert_eq!(
            (pool[0]["slots"].as_u64(), file["admin"].as_bool()),
            (Some(2), Some(false)),
            "{text}"
        );
        assert_eq!(file["data_dir"].as_str(), Some("./data"), "{text}");
        assert_eq!(
            file["access"]["anonymous"].as_str(),
            Some("allow"),
            "{text}"
        );
    }
}
