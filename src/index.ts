/** Public entry of Millrace: what a module in `workers/` needs to define commands, handlers, events and views. */
export type { Client, ClientSending, ClientSendOptions, CommandsOf } from './client/client.ts'
export { ClientError, type ClientErrorCode, clientErrorCode } from './client/client-error.ts'
export {
  type AggregateDefinition,
  type AggregateHandlerDefinition,
  type AggregateOptions,
  type Decision,
  defineAggregate,
  defineAggregateHandler,
  type NewEvent,
  newEvent,
} from './contracts/aggregate.ts'
export type { CloudEventContext } from './contracts/cloud-event.ts'
export { type CommandDefinition, type CommandOptions, defineCommand } from './contracts/command.ts'
export type { DeadReason } from './contracts/dead-reason.ts'
export { type ErrorCode, errorCode, MillraceError, type PayloadIssue } from './contracts/errors.ts'
export {
  defineEvent,
  type EventDefinition,
  type EventOptions,
  type EventPayload,
  type RecordedEvent,
} from './contracts/event.ts'
export {
  defineBatchHandler,
  defineHandler,
  type HandledCommand,
  type HandlerContext,
  type HandlerDefinition,
  type HandlerOptions,
  type SendOptions,
  type SingleHandlerOptions,
  type TraceContext,
} from './contracts/handler.ts'
export type { JsonSchema } from './contracts/json-schema.ts'
export type { Lease, LeaseOptions } from './contracts/lease.ts'
export type { Logger } from './contracts/logger.ts'
export { type Done, done, type Outcome, type Reject, type Retry, reject, retry } from './contracts/outcome.ts'
export type {
  AcceptedCommand,
  Belonging,
  CommandSituation,
  CommandStanding,
  Producer,
  Sending,
  SendingOptions,
  SubmitOutcome,
} from './contracts/producer.ts'
export {
  defineProjection,
  type Fold,
  type ProjectionDefinition,
  type ProjectionOptions,
  type ViewKeys,
} from './contracts/projection.ts'
export type { RateLimitRule, RateLimitSubject } from './contracts/rate-limit.ts'
export {
  defineSchedule,
  type ScheduleDefinition,
  type ScheduleOptions,
  type Timetable,
} from './contracts/schedule.ts'
export type { PayloadInput, PayloadOutput, PayloadSchema } from './contracts/schema.ts'
export {
  defineSingleton,
  type SingletonContext,
  type SingletonDefinition,
  type SingletonOptions,
  type SingletonRun,
} from './contracts/singleton.ts'
export {
  defineStream,
  type RetentionOptions,
  type StreamDefinition,
  type StreamOptions,
} from './contracts/stream.ts'
export type { Telemetry, TelemetryEvents, TelemetryListener, TelemetryName } from './contracts/telemetry.ts'
export { isTenantName, NO_TENANT, type Tenant } from './contracts/tenant.ts'
export { lease } from './host/ambient-lease.ts'
export { type InProcessClientOptions, inProcessClient } from './host/in-process-client.ts'
export { type Millrace, type MillraceOptions, type MillraceSummary, startMillrace } from './host/millrace.ts'
export { openProducer, type ProducerOptions } from './host/producer.ts'
