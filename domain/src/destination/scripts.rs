//! Hosts that mix scripts: a Cyrillic letter among Latin ones is seldom there by
//! accident.
//!
//! After the "Highly Restrictive" level of Unicode's TR39: a label is of one script, or
//! of Latin together with what Chinese, Japanese or Korean is written in.

use unicode_script::{Script, ScriptExtension, UnicodeScript as _};

/// Scripts that are written together.
const TOGETHER: [&[Script]; 3] = [
    &[
        Script::Latin,
        Script::Han,
        Script::Hiragana,
        Script::Katakana,
    ],
    &[Script::Latin, Script::Han, Script::Bopomofo],
    &[Script::Latin, Script::Han, Script::Hangul],
];

/// Whether one of the labels of a canonical host mixes scripts.
pub(super) fn are_mixed(host: &str) -> bool {
    // Only punycode holds anything but ASCII.
    let labels = host.split('.').filter(|label| label.starts_with("xn--"));
    let mut labels = labels.peekable();
    labels.peek().is_some()
        && labels.any(|label| {
            let (label, decoded) = idna::domain_to_unicode(label);
            decoded.is_err() || is_mixed(&label)
        })
}

fn is_mixed(label: &str) -> bool {
    let extensions: Vec<ScriptExtension> = label.chars().map(|c| c.script_extension()).collect();
    let is_of = |scripts: &[Script]| {
        let fits = |e: &ScriptExtension| {
            e.is_common()
                || e.is_inherited()
                || scripts.iter().any(|script| e.contains_script(*script))
        };
        extensions.iter().all(fits)
    };
    ScriptExtension::for_str(label).is_empty() && !TOGETHER.iter().any(|scripts| is_of(scripts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_two_scripts_is_mixed_unless_people_write_so() {
        let mixed = |host: &str| are_mixed(&idna::domain_to_ascii(host).unwrap());
        for host in [
            "pаypal.com",
            "gооgle.com",
            "apple.cоm",
            "αpple.com",
            "www.mіcrosoft.com",
            "日本а.jp",
            "한국и.kr",
            "ひらがな한국.jp",
        ] {
            assert!(mixed(host), "{host}");
        }
        for host in [
            "paypal.com",
            "bücher.example",
            "пример.рф",
            "яндекс-2.com",
            "παράδειγμα.gr",
            "日本語のサイト.jp",
            "sony日本.jp",
            "네이버-naver.kr",
            "中文abc.cn",
            "مثال.إختبار",
            "उदाहरण.भारत",
            "i❤.ws",
            // Each label of one script, as many registries have it.
            "пример.com",
        ] {
            assert!(!mixed(host), "{host}");
        }
    }
}
