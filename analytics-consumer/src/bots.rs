//! Programs that follow links, by what they call themselves.

/// Parts of user agents, in lower case: what nearly all programs that say what
/// they are have in common, then some that are spelled otherwise. No list is
/// complete; a program that lies is counted as a person.
const MARKS: [&str; 30] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "preview",
    "scrape",
    "fetch",
    "monitor",
    "headless",
    "lighthouse",
    "facebookexternalhit",
    "facebookcatalog",
    "embedly",
    "quora link",
    "pingdom",
    "uptime",
    "curl/",
    "wget/",
    "python-",
    "python/",
    "aiohttp",
    "go-http-client",
    "okhttp",
    "java/",
    "libwww",
    "apache-httpclient",
    "axios/",
    "node-fetch",
    "ruby",
    "scrapy",
];

/// Whether the user agent is a program's. No user agent at all is one's, too:
/// browsers always send one.
pub(crate) fn is_bot(user_agent: &str) -> bool {
    let user_agent = user_agent.to_ascii_lowercase();
    user_agent.is_empty()
        // A telephone of this name, whose makers are innocent.
        || MARKS.iter().any(|mark| user_agent.replace("cubot", "").contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_browsers() {
        for bot in [
            "",
            "curl/8.5.0",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "facebookexternalhit/1.1",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0.0.0 Safari/537.36",
        ] {
            assert!(is_bot(bot), "{bot}");
        }
        for browser in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) Version/17.4 Safari/604.1",
            "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) Chrome/120.0.0.0 Mobile Safari/537.36",
        ] {
            assert!(!is_bot(browser), "{browser}");
        }
    }
}
