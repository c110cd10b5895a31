/** A view out of what its partitions hold: the value, its entity tag and the position that goes with every answer. */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import { unpackPayload } from '../redis/payload-codec.ts'

export interface JoinedView {
  /** Undefined when no partition holds a part. */
  readonly value: unknown
  /** Version of the fold and a hash of the parts' bytes: equal content, equal tag. */
  readonly etag: string | undefined
}

/** Joins the parts, in the order of their partitions. Each is decoded anew, for `merge` may change what it is given. */
export function joinParts(projection: ProjectionDefinition, parts: readonly Buffer[]): JoinedView {
  const [first, ...others] = parts
  if (first === undefined) return { value: undefined, etag: undefined }
  let hash = Bun.hash.xxHash64(first)
  for (const part of others) hash = Bun.hash.xxHash64(part, hash)
  return { value: joinValues(projection, first, others), etag: `${projection.version}-${hash.toString(36)}` }
}

function joinValues(projection: ProjectionDefinition, first: Buffer, others: readonly Buffer[]): unknown {
  let value = unpackPayload(first)
  try {
    for (const part of others) value = projection.merge?.(value, unpackPayload(part)) ?? value
    return value
  } catch (cause) {
    const text = `"merge" of projection "${projection.name}" threw: ${describeError(cause)}`
    throw new MillraceError('fold.failed', text, { cause })
  }
}

/** `<partition>:<entry id>` of each partition, comma separated; '' when none was read. */
export function formatPosition(partitions: readonly number[], checkpoints: readonly string[]): string {
  return partitions.map((partition, i) => `${partition}:${checkpoints[i] ?? '0-0'}`).join(',')
}
