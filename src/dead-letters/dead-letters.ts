/**
 * The dead letters of all streams, for operators: look through them, look into one, send it back (as it is or with a mended
 * payload), discard it, or do that to many by filter.
 *
 *   dead ──redrive──▶ ready (same command id, attempts from 1) ──▶ done, or dead again
 *     └───discard───▶ gone; the command's status stays `dead` as long as results are kept
 *
 * Every move is atomic and names the dead letter that was seen: of two people only one succeeds, the other gets
 * `dead-letter.conflict`.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds, CommandPosition } from '../redis/command-id.ts'
import type { RedisLink } from '../redis/connection.ts'
import { discardDead, type FoundDead, findDead, redriveDead } from '../redis/dead-letter-stream.ts'
import { decodeEntry } from '../redis/entry-codec.ts'
import { readOrdering } from '../redis/fleet.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { type DeadLetter, decodeOrNothing, describe } from './dead-letter.ts'
import { type DeadLetterFilter, placesOf } from './dead-letter-filter.ts'
import { toEditedRedrive, toRedrive } from './dead-letter-moves.ts'
import { DeadLetterOperations, type Operation, type OperationKind } from './dead-letter-operations.ts'
import {
  type DeadLetterPage,
  type DeadLetterPageOptions,
  DeadLetterPages,
  SCAN_COUNT_MAX,
} from './dead-letter-pages.ts'

export interface DeadLettersOptions {
  /** Bytes of an edited payload, packed. Default 256 KiB. */
  readonly payloadBytesMax: number
  /** Dead letters that one page looks at. Default 10 000. */
  readonly scanCountMax: number
  /** Operations that run at once in this process. Default 4. */
  readonly operationsRunningMax: number
  /** Operations whose end can still be read. Default 100. */
  readonly operationsRememberedMax: number
}

const DEAD_LETTERS_DEFAULTS: DeadLettersOptions = {
  payloadBytesMax: 256 * 1024,
  scanCountMax: SCAN_COUNT_MAX,
  operationsRunningMax: 4,
  operationsRememberedMax: 100,
}

export interface DeadLettersParts {
  /** Of role `command`. */
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly options?: Partial<DeadLettersOptions>
}

/** One dead letter that was sent back. */
export interface RedrivenCommand {
  readonly id: string
  readonly redrives: number
}

export interface OperationOptions {
  /** Only counts. Default false. */
  readonly dryRun?: boolean | undefined
  /** 1-10 000. Default 500. */
  readonly ratePerSecond?: number | undefined
}

const RATE_DEFAULT = 500
export const RATE_MAX = 10_000

interface Seen {
  readonly position: CommandPosition
  readonly keys: PartitionKeys
  readonly letter: NonNullable<FoundDead['letter']>
}

export class DeadLetters extends Service implements HealthSource {
  readonly #parts: DeadLettersParts
  readonly #options: DeadLettersOptions
  readonly #pages: DeadLetterPages
  readonly #operations: DeadLetterOperations

  constructor(parts: DeadLettersParts) {
    super('dead-letters')
    checkKnownOptions('Dead letters', parts.options ?? {}, Object.keys(DEAD_LETTERS_DEFAULTS))
    this.#parts = parts
    this.#options = { ...DEAD_LETTERS_DEFAULTS, ...parts.options }
    const { command: link, ids, clock, telemetry } = parts
    const { scanCountMax, operationsRunningMax: runningMax, operationsRememberedMax } = this.#options
    this.#pages = new DeadLetterPages(link, ids, scanCountMax)
    const bounds = { runningMax, rememberedMax: operationsRememberedMax }
    this.#operations = new DeadLetterOperations({ link, ids, clock, telemetry, ...bounds })
  }

  health(): HealthReport {
    return { ready: true, detail: `${this.#operations.runningCount} operations run` }
  }

  /**
   * Newest first, without payloads.
   *
   * @throws MillraceError `not-found` (stream), `cursor.invalid`, `command.malformed`, `redis.unavailable`, `redis.unknown`
   */
  async page(filter: DeadLetterFilter = {}, options: DeadLetterPageOptions = {}): Promise<DeadLetterPage> {
    return await this.#pages.read(filter, placesOf(this.#parts.catalogue, filter), options)
  }

  /**
   * One dead letter with its payload and all that is known of its failures.
   *
   * @throws MillraceError `command.malformed`, `not-found`, `entry.unreadable`, `redis.unavailable`, `redis.unknown`
   */
  async inspect(commandId: string): Promise<DeadLetter> {
    const { position, keys } = await this.#locate(commandId)
    const { letter } = await findDead(this.#parts.command, keys, position.token)
    if (letter === undefined) throw notDead()
    this.#checkId(commandId, letter)
    return describe(this.#parts.ids, keys, { token: position.token, ...letter })
  }

  /**
   * Sends one back under its own id; its attempts start again, and it does not wait behind the backlog. With `edit` its
   * payload is replaced, if the schema takes the new one and its key belongs in the same partition.
   *
   * @throws MillraceError `dead-letter.conflict` (redriven, discarded or trimmed meanwhile), `command.invalid`,
   *   `command.too-large`, and what `inspect` throws
   */
  async redrive(commandId: string, edit?: { readonly payload: unknown }): Promise<RedrivenCommand> {
    const { command, catalogue, telemetry } = this.#parts
    const { position, keys, letter } = await this.#see(commandId)
    const { token } = position
    const { blob, entryId } = letter
    const entry = decodeEntry(blob)
    const { payloadBytesMax } = this.#options
    const headBytes = entry.payloadAt
    const dead = {
      token,
      entryId,
      head: blob.subarray(0, headBytes),
      payloadBytes: blob.length - headBytes,
    }
    const move =
      edit === undefined
        ? toRedrive(dead)
        : await toEditedRedrive({ token, entryId, blob }, edit.payload, { catalogue, keys, payloadBytesMax })
    const [isRedriven] = await redriveDead(command, keys, [move])
    if (isRedriven !== true) throw conflict()
    const { stream, partition } = keys
    telemetry.emit('dead-letters.redriven', { stream, partition, count: 1 })
    return { id: commandId, redrives: (entry.trail?.redrives ?? 0) + 1 }
  }

  /**
   * Deletes one for good. The status of the command stays `dead` as long as results of this moment are kept.
   *
   * @throws MillraceError `dead-letter.conflict` (redriven, discarded or trimmed meanwhile),
   *   `command.malformed`, `not-found`,
   *   `redis.unavailable`, `redis.unknown`
   */
  async discard(commandId: string): Promise<void> {
    const { command, telemetry } = this.#parts
    const { position, keys, letter } = await this.#see(commandId)
    const [isDiscarded] = await discardDead(command, keys, [
      { token: position.token, entryId: letter.entryId },
    ])
    if (isDiscarded !== true) throw conflict()
    const { stream, partition } = keys
    telemetry.emit('dead-letters.purged', { stream, partition, count: 1 })
  }

  /** Starts to redrive all that the filter means; follow it with `operation`. */
  redriveAll(filter: DeadLetterFilter, options: OperationOptions = {}): Operation {
    return this.#start('redrive', filter, options)
  }

  /** Starts to discard all that the filter means; follow it with `operation`. */
  purgeAll(filter: DeadLetterFilter, options: OperationOptions = {}): Operation {
    return this.#start('purge', filter, options)
  }

  /**
   * How an operation of this process goes.
   *
   * @throws MillraceError `not-found`
   */
  operation(id: string): Operation {
    return this.#operations.read(id)
  }

  protected override async onStart(): Promise<void> {}

  protected override async onStop(): Promise<void> {
    await this.#operations.stop()
  }

  /** @throws MillraceError `not-found` (stream), `command.malformed`, `admission.overloaded`, `service.stopped` */
  #start(kind: OperationKind, filter: DeadLetterFilter, options: OperationOptions): Operation {
    const { dryRun = false, ratePerSecond = RATE_DEFAULT } = options
    if (!Number.isInteger(ratePerSecond) || ratePerSecond < 1 || ratePerSecond > RATE_MAX) {
      throw new MillraceError(
        'command.malformed',
        `"ratePerSecond" must be a whole number from 1 to ${RATE_MAX}.`,
      )
    }
    const places = placesOf(this.#parts.catalogue, filter)
    return this.#operations.start({ kind, filter, places, dryRun, ratePerSecond })
  }

  async #locate(
    commandId: string,
  ): Promise<{ readonly position: CommandPosition; readonly keys: PartitionKeys }> {
    const { ids, catalogue, command } = this.#parts
    const position = ids.locate(commandId)
    const { stream, partition } = position
    const ordering = catalogue.streams.get(stream)?.ordering ?? (await readOrdering(command, stream))
    return { position, keys: partitionKeys(stream, partition, ordering) }
  }

  async #see(commandId: string): Promise<Seen> {
    const { position, keys } = await this.#locate(commandId)
    const { letter, wasDead } = await findDead(this.#parts.command, keys, position.token)
    if (letter === undefined) throw wasDead ? conflict() : notDead()
    this.#checkId(commandId, letter)
    return { position, keys, letter }
  }

  /** Operators see the dead letters of every tenant; an id is true if it is that of the tenant whose letter was found. */
  #checkId(commandId: string, { blob }: Seen['letter']): void {
    this.#parts.ids.parse(commandId, decodeOrNothing(blob)?.tenant)
  }
}

function notDead(): MillraceError {
  return new MillraceError('not-found', 'This command is no dead letter.')
}

function conflict(): MillraceError {
  return new MillraceError(
    'dead-letter.conflict',
    'This command is no dead letter any more: it was redriven, discarded or trimmed. Look at its status.',
  )
}
