//! Names of attributes by OpenTelemetry's semantic conventions 1.44: constants, never literals elsewhere.

/// The schema that our names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// `client.address`
pub const CLIENT_ADDRESS: &str = "client.address";
/// `content_factory.celery.task`: ours, the name of a task of Celery.
pub const CELERY_TASK: &str = "content_factory.celery.task";
/// The hash of a client's address with the key of the day; ours.
pub const CONTENT_FACTORY_CLIENT_HASH: &str = "content_factory.client.hash";
/// `code.file.path`
pub const CODE_FILE_PATH: &str = "code.file.path";
/// `code.function.name`
pub const CODE_FUNCTION_NAME: &str = "code.function.name";
/// `cpu.mode`
pub const CPU_MODE: &str = "cpu.mode";
/// `db.client.connection.pool.name`
pub const DB_CLIENT_CONNECTION_POOL_NAME: &str = "db.client.connection.pool.name";
/// `db.client.connection.state`
pub const DB_CLIENT_CONNECTION_STATE: &str = "db.client.connection.state";
/// `db.namespace`
pub const DB_NAMESPACE: &str = "db.namespace";
/// `db.operation.name`
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// `db.system.name`
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// `error.type`
pub const ERROR_TYPE: &str = "error.type";
/// `exception.stacktrace`
pub const EXCEPTION_STACKTRACE: &str = "exception.stacktrace";
/// `exception.type`
pub const EXCEPTION_TYPE: &str = "exception.type";
/// `gen_ai.operation.name`; the conventions for generative AI have a repository of their own since 1.42
pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
/// `gen_ai.provider.name`
pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai.provider.name";
/// `gen_ai.request.model`
pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
/// `gen_ai.request.stream`
pub const GEN_AI_REQUEST_STREAM: &str = "gen_ai.request.stream";
/// `gen_ai.response.model`
pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
/// `gen_ai.response.time_to_first_chunk`
pub const GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
/// `gen_ai.token.type`
pub const GEN_AI_TOKEN_TYPE: &str = "gen_ai.token.type";
/// `gen_ai.usage.input_tokens`
pub const GEN_AI_USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// `gen_ai.usage.output_tokens`
pub const GEN_AI_USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// `http.request.method`
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// `http.request.method_original`
pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
/// `http.request.resend_count`
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// `http.response.status_code`
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// `http.route`
pub const HTTP_ROUTE: &str = "http.route";
/// `messaging.client.id`
pub const MESSAGING_CLIENT_ID: &str = "messaging.client.id";
/// `messaging.destination.name`
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// `messaging.message.id`
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// `messaging.operation.name`
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// `messaging.operation.type`
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// `messaging.system`
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// `network.io.direction`
pub const NETWORK_IO_DIRECTION: &str = "network.io.direction";
/// `network.peer.address`
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
/// `network.peer.port`
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
/// `network.protocol.version`
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// `otel.metric.overflow`
pub const OTEL_METRIC_OVERFLOW: &str = "otel.metric.overflow";
/// `content_factory.sampling.reason`: ours, why the spans of a request were kept.
pub const SAMPLING_REASON: &str = "content_factory.sampling.reason";
/// `server.address`
pub const SERVER_ADDRESS: &str = "server.address";
/// `server.port`
pub const SERVER_PORT: &str = "server.port";
/// `service.name`
pub const SERVICE_NAME: &str = "service.name";
/// `system.filesystem.state`
pub const SYSTEM_FILESYSTEM_STATE: &str = "system.filesystem.state";
/// `system.memory.state`
pub const SYSTEM_MEMORY_STATE: &str = "system.memory.state";
/// `url.full`
pub const URL_FULL: &str = "url.full";
/// `url.path`
pub const URL_PATH: &str = "url.path";
/// `url.query`
pub const URL_QUERY: &str = "url.query";
/// `url.scheme`
pub const URL_SCHEME: &str = "url.scheme";
/// `user_agent.original`
pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";
