/**
 * What a dead letter becomes when it is sent back: its attempts start again, its history stays, and it has no deadline any
 * more: whoever sends it back wants it to run. Pure but for the schema.
 */
import { describeError, errorCode, MillraceError } from '../contracts/errors.ts'
import { validatePayload } from '../contracts/schema.ts'
import { type Catalogue, versionKey } from '../policies/catalogue.ts'
import { partitionOf } from '../policies/partition.ts'
import type { DeadEntry, Redrive } from '../redis/dead-letter-stream.ts'
import {
  decodeEntry,
  EMPTY_TRAIL,
  type Entry,
  encodeCopy,
  encodeCopyHead,
  packEntry,
  type Trail,
} from '../redis/entry-codec.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { packPayload } from '../redis/payload-codec.ts'

/** @throws MillraceError `entry.unreadable` */
export function toRedrive({ token, entryId, head }: DeadEntry): Redrive {
  const entry = decodeEntry(head)
  const trail = redriven(entry)
  const bytes = encodeCopyHead(entry, { expiresAtMs: undefined, trail })
  const { tenant } = entry
  return { token, entryId, tenant, bytes, replacesBytes: head.length, record: recordOf(trail) }
}

export interface EditParts {
  readonly catalogue: Catalogue
  readonly keys: PartitionKeys
  readonly payloadBytesMax: number
}

/**
 * The same with another payload, which must be what the command's schema wants, and must belong in the same partition: a
 * command keeps its id, and the id names the partition.
 *
 * @throws MillraceError `command.invalid`, `command.too-large`, `entry.unreadable`
 */
export async function toEditedRedrive(
  found: { readonly token: string; readonly entryId: string; readonly blob: Buffer },
  payload: unknown,
  { catalogue, keys, payloadBytesMax }: EditParts,
): Promise<Redrive> {
  const entry = decodeEntry(found.blob)
  const command = catalogue.commandVersions.get(versionKey(entry))
  if (command === undefined) {
    throw new MillraceError(
      'command.invalid',
      `No module here defines "${versionKey(entry)}", so its new payload can't be checked; redrive it as it is, or where it is defined.`,
    )
  }
  const valid = await checked(entry.type, () => validatePayload(entry.type, command.payload, payload))
  const trail = redriven(entry)
  const { blob, headerBytes } = await checked(entry.type, () =>
    packEntry({ ...entry, expiresAtMs: undefined, trail }, valid),
  )
  const payloadBytes = blob.length - headerBytes
  if (payloadBytes > payloadBytesMax) {
    throw new MillraceError(
      'command.too-large',
      `The payload of "${entry.type}" has ${payloadBytes} bytes; at most ${payloadBytesMax} are allowed.`,
    )
  }
  // Without a key function it has the one that it came with, if any.
  const key = await checked(entry.type, () => (command.key === undefined ? entry.key : command.key(valid)))
  const partitions = catalogue.streams.get(keys.stream)?.partitions ?? 1
  if (key !== entry.key && partitionOf(key, partitions, entry.tenant) !== keys.partition) {
    throw new MillraceError(
      'command.invalid',
      `The new payload has the key "${key.slice(0, 80)}", which belongs to another partition of "${keys.stream}"; send it as a new command, and discard this one.`,
    )
  }
  const bytes = key === entry.key ? blob : encodeCopy(decodeEntry(blob), { key })
  return {
    token: found.token,
    entryId: found.entryId,
    tenant: entry.tenant,
    bytes,
    replacesBytes: undefined,
    record: recordOf(trail),
  }
}

/** A fault of a schema or a key function is the payload's fault, told without it. */
async function checked<Value>(type: string, check: () => Value | Promise<Value>): Promise<Value> {
  try {
    return await check()
  } catch (error) {
    if (errorCode(error) !== undefined) throw error
    throw new MillraceError(
      'command.invalid',
      `Checking the payload of "${type}" failed: ${describeError(error, 200)}.`,
    )
  }
}

function redriven({ trail = EMPTY_TRAIL }: Entry): Trail {
  return { attempts: 0, level: 0, redrives: trail.redrives + 1, failures: trail.failures }
}

function recordOf({ redrives }: Trail): Buffer {
  return packPayload({ attempts: 0, redrives })
}
