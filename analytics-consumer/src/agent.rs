//! What a user agent says about who follows a link.

use quick_cache::sync::Cache;
use woothee::parser::Parser;

use crate::bots::is_bot;

/// User agents whose meaning is remembered. Working it out takes microseconds, and
/// a few thousand make nearly all of the traffic; of at most 256 bytes each, these
/// take a few megabytes.
const REMEMBERED: usize = 16_384;

/// Cheap to copy. What is not known is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) is_bot: bool,
    pub(crate) device: &'static str,
    pub(crate) browser: &'static str,
    pub(crate) os: &'static str,
}

/// Tells what user agents mean, and remembers it.
#[derive(Debug)]
pub(crate) struct Agents(Cache<Box<str>, Agent>);

impl Agents {
    pub(crate) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }

    pub(crate) fn tell(&self, user_agent: &str) -> Agent {
        if let Some(agent) = self.0.get(user_agent) {
            return agent;
        }
        let agent = parse(user_agent);
        self.0.insert(user_agent.into(), agent);
        agent
    }
}

fn parse(user_agent: &str) -> Agent {
    let parsed = Parser::new().parse(user_agent).unwrap_or_default();
    Agent {
        is_bot: parsed.category == "crawler" || is_bot(user_agent),
        device: device(parsed.category, user_agent),
        browser: browser(parsed.name, user_agent),
        os: os(parsed.os, user_agent),
    }
}

fn device(category: &str, user_agent: &str) -> &'static str {
    let says = |word| user_agent.contains(word);
    // An Android that does not say that it is a telephone.
    let large_android = says("Android") && !says("Mobile");
    if says("TV") || says("CrKey") || says("BRAVIA") {
        return "tv";
    }
    if says("iPad") || says("Tablet") || (large_android && category != "pc") {
        return "tablet";
    }
    match category {
        "pc" => "desktop",
        "smartphone" | "mobilephone" => "mobile",
        "appliance" => "console",
        _ => "",
    }
}

/// Names that people know, of a bounded number.
fn browser(name: &str, user_agent: &str) -> &'static str {
    // Built on Chrome or Safari, and younger than the list of the parser.
    const YOUNGER: [(&str, &str); 9] = [
        ("Instagram", "Instagram"),
        ("FBAN/", "Facebook"),
        ("FBAV/", "Facebook"),
        ("musical_ly", "TikTok"),
        ("BytedanceWebview", "TikTok"),
        ("LinkedInApp", "LinkedIn"),
        ("DuckDuckGo/", "DuckDuckGo"),
        ("Ddg/", "DuckDuckGo"),
        ("UCBrowser/", "UC Browser"),
    ];
    let younger = YOUNGER.iter().find(|(mark, _)| user_agent.contains(mark));
    if let Some((_, name)) = younger {
        return name;
    }
    match name {
        "Chrome" => "Chrome",
        "Safari" => "Safari",
        "Firefox" => "Firefox",
        "Edge" => "Edge",
        "Opera" => "Opera",
        "SamsungBrowser" => "Samsung Internet",
        "Internet Explorer" => "Internet Explorer",
        "Vivaldi" => "Vivaldi",
        "Yandex Browser" => "Yandex Browser",
        "Google Search App" => "Google app",
        "Webview" => "Web view",
        _ => "",
    }
}

fn os(name: &str, user_agent: &str) -> &'static str {
    match name {
        "iPhone" | "iPad" | "iPod" | "iOS" => "iOS",
        "Android" => "Android",
        "Mac OSX" | "Mac OS Classic" => "macOS",
        "Linux" => "Linux",
        "BSD" => "BSD",
        "ChromeOS" => "ChromeOS",
        "PlayStation 3" | "PlayStation 4" | "PlayStation Vita" | "PlayStation Portable" => {
            "PlayStation"
        }
        "Xbox 360" | "Xbox One" => "Xbox",
        "Nintendo 3DS" | "Nintendo DSi" | "Nintendo Wii" | "Nintendo Wii U" => "Nintendo",
        "BlackBerry" | "BlackBerry 10" => "BlackBerry",
        name if name.starts_with("Windows Phone") => "Windows Phone",
        name if name.starts_with("Windows") => "Windows",
        _ if user_agent.contains("HarmonyOS") => "HarmonyOS",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_browsers_and_systems_are_told_apart() {
        let cases = [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                ("desktop", "Firefox", "Linux"),
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
                ("desktop", "Edge", "Windows"),
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
                ("desktop", "Safari", "macOS"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1",
                ("mobile", "Safari", "iOS"),
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
                ("tablet", "Safari", "iOS"),
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) \
                 SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
                ("mobile", "Samsung Internet", "Android"),
            ),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/126.0.0.0 Safari/537.36",
                ("tablet", "Chrome", "Android"),
            ),
            ("something that nobody has heard of", ("", "", "")),
        ];
        for (user_agent, expected) in cases {
            let agent = parse(user_agent);
            assert_eq!(
                (agent.device, agent.browser, agent.os),
                expected,
                "{user_agent}"
            );
            assert!(!agent.is_bot, "{user_agent}");
        }
    }

    #[test]
    fn crawlers_are_bots_and_what_is_remembered_is_bounded() {
        let agents = Agents::new();
        assert!(
            agents
                .tell("Mozilla/5.0 (compatible; Baiduspider/2.0)")
                .is_bot
        );
        assert!(agents.tell("").is_bot);
        for n in 0..3 * REMEMBERED {
            agents.tell(&format!("browser {n}"));
        }
        assert!(agents.0.len() <= REMEMBERED);
    }
}
