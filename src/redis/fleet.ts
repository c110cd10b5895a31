/**
 * What every process of a fleet agrees on before it does anything: the secret behind command ids and the number of
 * partitions of each stream, and how it is ordered. All are written once and compared ever after; who only joins writes nothing, so that a worker can
 * also start when Redis is out of memory.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { Ordering, StreamDefinition } from '../contracts/stream.ts'
import { CommandIds } from './command-id.ts'
import type { RedisLink } from './connection.ts'
import { FLEET_META_KEY, streamMetaKey } from './keys.ts'

/**
 * @throws MillraceError `stream.partition-mismatch`, `stream.ordering-mismatch` when a stream exists with another number of
 *   partitions or another ordering
 */
export async function joinFleet(link: RedisLink, streams: Iterable<StreamDefinition>): Promise<CommandIds> {
  const secret = await link.use('the fleet secret', async (client) => {
    const known = await client.hgetBuffer(FLEET_META_KEY, 'secret')
    if (known !== null) return known
    await client.hsetnx(FLEET_META_KEY, 'secret', Buffer.from(crypto.getRandomValues(new Uint8Array(32))))
    return client.hgetBuffer(FLEET_META_KEY, 'secret')
  })
  if (secret === null) throw new MillraceError('redis.unknown', 'The fleet secret could not be read back.')
  for (const stream of streams) await checkStream(link, stream)
  return new CommandIds(secret)
}

/**
 * Writes what a fleet agrees on once more where Redis has lost it, so that processes that start now know the ids that were
 * given out before.
 */
export async function restoreFleet(
  link: RedisLink,
  ids: CommandIds,
  streams: Iterable<StreamDefinition>,
): Promise<void> {
  await link.use('the fleet secret', (client) => client.hsetnx(FLEET_META_KEY, 'secret', ids.secret))
  for (const { name, partitions, ordering } of streams) {
    await link.use(`stream "${name}"`, async (client) => {
      await client.hsetnx(streamMetaKey(name), 'ordering', ordering)
      await client.hsetnx(streamMetaKey(name), 'partitions', partitions)
    })
  }
}

/** How a stream is ordered that this process does not declare; `none` when nobody ever used it. */
export async function readOrdering(link: RedisLink, stream: string): Promise<Ordering> {
  const found = await link.use(`stream "${stream}"`, (client) =>
    client.hget(streamMetaKey(stream), 'ordering'),
  )
  return found === 'key' ? 'key' : 'none'
}

async function checkStream(link: RedisLink, stream: StreamDefinition): Promise<void> {
  const key = streamMetaKey(stream.name)
  const [partitions, ordering] = await link.use(`stream "${stream.name}"`, async (client) => {
    const known = await client.hmget(key, 'partitions', 'ordering')
    if (known[0] != null) return known
    // The number of partitions last: who finds it finds the ordering too.
    await client.hsetnx(key, 'ordering', stream.ordering)
    await client.hsetnx(key, 'partitions', stream.partitions)
    return client.hmget(key, 'partitions', 'ordering')
  })
  if (Number(partitions) !== stream.partitions) {
    throw new MillraceError(
      'stream.partition-mismatch',
      `Stream "${stream.name}" has ${partitions} partitions in Redis, the definition says ${stream.partitions}. The number is fixed when a stream is first used: declare ${partitions}, or use a new stream name.`,
    )
  }
  if ((ordering ?? 'none') === stream.ordering) return
  throw new MillraceError(
    'stream.ordering-mismatch',
    `Stream "${stream.name}" has ordering '${ordering ?? 'none'}' in Redis, the definition says '${stream.ordering}'. It is fixed when a stream is first used: declare '${ordering ?? 'none'}', or use a new stream name.`,
  )
}
