/**
 * What is handed to the command bus, and the limits on the way.
 */
import type { CloudEventContext } from '../contracts/cloud-event.ts'
import type { Durability } from '../contracts/durability.ts'
import type { Tenant } from '../contracts/tenant.ts'

export interface CommandBusOptions {
  /** Told in every answer; what Redis is configured to do. Default `everysec`. */
  readonly durability: Durability
  /** Commands in one script. Default 256. */
  readonly batchCountMax: number
  /** Bytes in one script. Default 4 MiB. */
  readonly batchBytesMax: number
  /** Scripts of one partition under way at once. Default 8. */
  readonly batchesInFlightMax: number
  /** Commands of this process that wait or are under way. Default 50 000. */
  readonly waitingCountMax: number
  /** Their bytes. Default 64 MiB. */
  readonly waitingBytesMax: number
  /** Bytes of one packed payload. Default 256 KiB. */
  readonly payloadBytesMax: number
  /** Commands in one all-or-none append. Default 1000. */
  readonly atomicCountMax: number
  /** An idempotency key is remembered at least this long. Default 24 h. */
  readonly idempotencyWindowMs: number
  /** Keys remembered per window, about 60 bytes of Redis each. Default 4 000 000. */
  readonly idempotencyRecordsMax: number
  /** Longest delay. Default 366 days. */
  readonly delayMsMax: number
  /** Unfinished commands of any stream at which its door closes, whatever the stream allows. Default 10 000 000. */
  readonly depthMax: number
  /** Share of Redis's memory at which every door closes. Default 0.85. */
  readonly memoryRatioMax: number
  /** Commands that one tenant may have waiting in one partition: accepted, and not ended. Default 100 000. */
  readonly tenantWaitingMax: number
  /** Bytes of their entries. Default 256 MiB. */
  readonly tenantWaitingBytesMax: number
  /** Longest pause between two samples of depth and memory; near a limit they come sooner. Default 250 ms. */
  readonly sampleMs: number
}

export const COMMAND_BUS_DEFAULTS: CommandBusOptions = {
  durability: 'everysec',
  batchCountMax: 256,
  batchBytesMax: 4 * 1024 ** 2,
  batchesInFlightMax: 8,
  waitingCountMax: 50_000,
  waitingBytesMax: 64 * 1024 ** 2,
  payloadBytesMax: 256 * 1024,
  atomicCountMax: 1000,
  idempotencyWindowMs: 24 * 3_600_000,
  idempotencyRecordsMax: 4_000_000,
  delayMsMax: 366 * 86_400_000,
  depthMax: 10_000_000,
  memoryRatioMax: 0.85,
  tenantWaitingMax: 100_000,
  tenantWaitingBytesMax: 256 * 1024 ** 2,
  sampleMs: 250,
}

/** When to deliver: after a delay from acceptance, or at a time, by Redis's clock. */
export type Delivery = { readonly delayMs: number } | { readonly atMs: number }

/** When it expires: so long after acceptance, or at a time, by Redis's clock. It is not started from then on. */
export type Expiry = { readonly inMs: number } | { readonly atMs: number }

export interface SubmitOptions {
  /** The producer's name for this command: a repetition gets the first one's id. */
  readonly idempotencyKey?: string | undefined
  /** 8 bytes that tell repetitions from other commands under the same key. Default: over type and payload. */
  readonly fingerprint?: Buffer | undefined
  readonly deliver?: Delivery | undefined
  /** Told in the same way as `deliver`, where both are given. At most 366 days, as a delay. */
  readonly expires?: Expiry | undefined
  /** W3C traceparent. */
  readonly trace?: string | undefined
  /** What it came as; its subject is the key of a command that has no other. */
  readonly cloudEvent?: CloudEventContext | undefined
  /** Whose command it is; its key, its idempotency key and its id mean nothing to any other. Default none. */
  readonly tenant?: Tenant | undefined
}

export interface Submission extends SubmitOptions {
  readonly type: string
  readonly payload: unknown
}
