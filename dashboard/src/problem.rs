//! Errors as HTTP responses: `{"error":{"kind":…,"message":…}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use homehost_api::{ApiError, ErrorKind};
use serde::Serialize;

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) ApiError);

#[derive(Serialize)]
struct Body {
    error: ApiError,
}

impl Problem {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(ApiError::new(kind, message))
    }

    fn status(&self) -> StatusCode {
        match self.0.kind {
            ErrorKind::Internal | ErrorKind::Unhealthy => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Usage => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::WrongState | ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status(), Json(Body { error: self.0 })).into_response()
    }
}
