/**
 * A schedule ready to fire: payload checked once, packed once, its partition known, its definition digested.
 *
 * The digest decides whether two deployments mean the same schedule, so it covers everything that changes what a tick does.
 * It is taken over the payload as declared: a schema may fill in something that differs from start to start.
 */
import { describeError, errorCode, MillraceError } from '../contracts/errors.ts'
import type { ScheduleDefinition } from '../contracts/schedule.ts'
import { validatePayload } from '../contracts/schema.ts'
import { NO_TENANT } from '../contracts/tenant.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { partitionOf } from '../policies/partition.ts'
import { checkTimetable } from '../policies/timetable.ts'
import { encodeEntry } from '../redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import { packPayload } from '../redis/payload-codec.ts'
import type { ScheduleSpec } from '../redis/schedule-store.ts'

export interface PreparedSchedule extends ScheduleSpec {
  readonly definition: ScheduleDefinition
  readonly keys: PartitionKeys
  /** The command of one tick, as an entry. `atMs` is Redis's clock, as the tick is: this process's may be wrong. */
  encode(tickMs: number, atMs: number): Buffer
}

const PAYLOAD_BYTES_MAX = 256 * 1024

/** @throws MillraceError `definition.invalid` when timetable or payload are not usable */
export async function prepareSchedule(
  definition: ScheduleDefinition,
  catalogue: Pick<Catalogue, 'streams'>,
): Promise<PreparedSchedule> {
  const { name, command, tenant, timetable, catchUp, catchUpCountMax, overlap } = definition
  checkTimetable(name, timetable)
  const payload = await checkedPayload(definition)
  const bytes = pack(name, payload)
  const key = keyOf(definition, payload)
  const stream = catalogue.streams.get(command.stream)
  const partitions = stream?.partitions ?? 1
  const partition = partitionOf(command.key === undefined ? bytes : key, partitions, tenant)
  const { type, version } = command
  const envelope = { type, version, key, tenant, trace: undefined, trail: undefined }
  const when = JSON.stringify(timetable)
  const what = [command.stream, partition, type, version, catchUp, catchUpCountMax, overlap]
  if (tenant !== NO_TENANT) what.push(tenant)
  return {
    definition,
    name,
    tenant,
    keys: partitionKeys(command.stream, partition, stream?.ordering),
    spec: digest(when, JSON.stringify(what), pack(name, definition.payload)),
    timetable: digest(when),
    encode: (tickMs, atMs) => encodeEntry({ ...envelope, atMs, tickMs }, bytes),
  }
}

/** @throws MillraceError `definition.invalid` */
export async function prepareSchedules(catalogue: Catalogue): Promise<PreparedSchedule[]> {
  const prepared: PreparedSchedule[] = []
  for (const definition of catalogue.schedules.values()) {
    prepared.push(await prepareSchedule(definition, catalogue))
  }
  return prepared
}

async function checkedPayload({ name, command, payload }: ScheduleDefinition): Promise<unknown> {
  try {
    return await validatePayload(`schedule "${name}"`, command.payload, payload)
  } catch (error) {
    const detail =
      errorCode(error) === undefined ? describeError(error, 200) : (error as MillraceError).message
    throw new MillraceError('definition.invalid', `${detail} (command "${command.type}").`, { cause: error })
  }
}

function pack(name: string, payload: unknown): Buffer {
  let bytes: Buffer
  try {
    bytes = packPayload(payload)
  } catch (error) {
    throw new MillraceError(
      'definition.invalid',
      `The payload of schedule "${name}" can't be stored: ${describeError(error, 200)}.`,
    )
  }
  if (bytes.length <= PAYLOAD_BYTES_MAX) return bytes
  throw new MillraceError(
    'definition.invalid',
    `The payload of schedule "${name}" has ${bytes.length} bytes; at most ${PAYLOAD_BYTES_MAX} are allowed.`,
  )
}

function keyOf({ name, command }: ScheduleDefinition, payload: unknown): string {
  if (command.key === undefined) return ''
  let key: unknown
  try {
    key = command.key(payload)
  } catch (error) {
    throw new MillraceError(
      'definition.invalid',
      `The key of "${command.type}" for schedule "${name}" could not be told: ${describeError(error, 200)}.`,
    )
  }
  if (typeof key === 'string' && Buffer.byteLength(key) <= 255) return key
  throw new MillraceError(
    'definition.invalid',
    `The key of "${command.type}" for schedule "${name}" is not a text of at most 255 bytes.`,
  )
}

function digest(...parts: readonly (string | Buffer)[]): string {
  const hasher = new Bun.CryptoHasher('sha256')
  for (const part of parts) {
    hasher.update(`${part.length}:`)
    hasher.update(part)
  }
  return hasher.digest('base64url').slice(0, 22)
}
