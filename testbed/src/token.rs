//! Signs the tokens that the API takes: HS256, as RFC 7515 has it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// Everything that a token may allow.
pub const ALL_SCOPES: &str = "links:write links:read stats:read links:takedown";

/// In the year 2100: no test outlives it.
const FAR_AWAY: u64 = 4_102_444_800;

/// A token of this tenant with these scopes (separated by spaces), valid for long.
#[must_use]
pub fn sign(secret: &[u8], tenant: &str, scopes: &str) -> String {
    sign_claims(
        secret,
        &json!({"sub": "testbed", "tenant": tenant, "scope": scopes, "exp": FAR_AWAY}),
    )
}

/// A token of exactly these claims.
#[must_use]
pub fn sign_claims(secret: &[u8], claims: &Value) -> String {
    sign_text(
        secret,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        &claims.to_string(),
    )
}

fn sign_text(secret: &[u8], header: &str, claims: &str) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    hmac.update(signed.as_bytes());
    format!("{signed}.{}", encode(&hmac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.1.
    #[test]
    fn a_token_is_signed_as_in_the_standard_s_example() {
        let secret = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = sign_text(
            &secret,
            "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}",
            "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
        );
        assert!(token.ends_with(".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
    }
}
