//! ApiVersions: what is in the protocol's table, no more.

use madang_protocol::api_key::ApiKey;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};

/// The first version in which a client says what it is.
const NAMED: i16 = 3;

/// Answers one request of a version that is served.
#[must_use]
pub fn handle(request: &ApiVersionsRequest<'_>, version: i16) -> ApiVersionsResponse<'static> {
    let named = |text: &str| version < NAMED || is_software_name(text);
    if !named(&request.client_software_name) || !named(&request.client_software_version) {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..ApiVersionsResponse::default() };
    }
    ApiVersionsResponse { api_keys: ApiKey::ALL.iter().map(|&key| advertised(key)).collect(), ..Default::default() }
}

/// The answer to a version that is not served: always encoded as version 0, with the one entry a client needs to try again (KIP-511).
#[must_use]
pub fn unsupported() -> ApiVersionsResponse<'static> {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![advertised(ApiKey::ApiVersions)],
        ..ApiVersionsResponse::default()
    }
}

fn advertised(key: ApiKey) -> ApiVersion {
    let api = key.api();
    ApiVersion { api_key: key.code(), min_version: api.advertised_min, max_version: api.served.max }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn produce_is_advertised_from_zero_and_every_other_api_as_it_is_served() {
        let request =
            ApiVersionsRequest { client_software_name: "librdkafka".into(), client_software_version: "2.12.1".into() };
        let response = handle(&request, 4);
        assert_eq!(response.error_code, 0);
        for api in &response.api_keys {
            let served = ApiKey::from_code(api.api_key).unwrap().api().served;
            let minimum = if api.api_key == 0 { 0 } else { served.min };
            assert_eq!((api.min_version, api.max_version), (minimum, served.max));
        }
    }

    #[test]
    fn a_client_that_names_itself_badly_is_refused() {
        for (name, good) in [("a", true), ("apache-kafka-java", true), ("", false), ("-a", false), ("a b", false)] {
            let request = ApiVersionsRequest { client_software_name: name.into(), client_software_version: "1".into() };
            assert_eq!(handle(&request, 3).error_code == 0, good, "{name:?}");
            assert_eq!(handle(&request, 2).error_code, 0);
        }
    }
}
