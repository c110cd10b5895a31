/**
 * The outbox of one partition: commands bound for others, relayed in order, each once, without a gap.
 *
 * Every entry names the id before it that went to the same target. The target keeps one id per source; it takes an entry
 * only when it has everything before it, and skips what it has. So a relay may run twice, die, or run beside another.
 */
import { entryIdAfter, isNothing, replyArray, replyBuffer, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { tenantOfEntry } from './entry-codec.ts'
import { type PartitionKeys, partitionKeys } from './keys.ts'
import type { ReplicationRule } from './replication.ts'
import { packTenants } from './tenant-loads.ts'

export interface OutboxEntry {
  readonly id: string
  /** `<stream>.<partition>` */
  readonly target: string
  readonly previousId: string
  readonly delayMs: number
  readonly blob: Buffer
}

/** One page, from after `afterId` ('' the first). */
export async function readOutbox(
  link: RedisLink,
  keys: PartitionKeys,
  countMax: number,
  afterId: string,
): Promise<OutboxEntry[]> {
  const reply = await link.use('the outbox', (client) =>
    client.xrangeBuffer(keys.outbox, afterId === '' ? '-' : `(${afterId}`, '+', 'COUNT', countMax),
  )
  return replyArray(reply).map((row) => {
    const [id, fields] = replyArray(row)
    const map = new Map<string, unknown>()
    const list = isNothing(fields) ? [] : replyArray(fields)
    for (let i = 0; i + 1 < list.length; i += 2) map.set(replyText(list[i]), list[i + 1])
    return {
      id: replyText(id),
      target: replyText(map.get('t')),
      previousId: replyText(map.get('p')),
      delayMs: replyNumber(map.get('d')),
      blob: replyBuffer(map.get('b')),
    }
  })
}

/**
 * The same, with whether enough replicas have what was read: a target on another server must not be ahead of a source that
 * may yet lose it. Needs a connection that nobody else uses, for WAIT holds it.
 */
export async function readConfirmedOutbox(
  link: RedisLink,
  keys: PartitionKeys,
  countMax: number,
  afterId: string,
  { replicas, waitMs }: ReplicationRule,
): Promise<{ readonly entries: OutboxEntry[]; readonly confirmed: boolean }> {
  const [entries, count] = await Promise.all([
    readOutbox(link, keys, countMax, afterId),
    link.use('WAIT for the outbox', (client) => client.wait(replicas, waitMs)),
  ])
  return { entries, confirmed: count >= replicas }
}

export interface AppendOnceAnswer {
  readonly appended: number
  /** An entry before these never came: loss. */
  readonly gap: boolean
}

/** Takes over entries of `source` into `target`; all entries must be addressed to it, in order. */
export async function appendOnce(
  link: RedisLink,
  source: PartitionKeys,
  target: string,
  entries: readonly OutboxEntry[],
): Promise<AppendOnceAnswer> {
  const dot = target.lastIndexOf('.')
  const keys = partitionKeys(target.slice(0, dot), Number(target.slice(dot + 1)))
  const args: (string | number | Buffer)[] = [
    `${source.stream}.${source.partition}`,
    packTenants(entries.map(({ blob }) => tenantOfEntry(blob))),
  ]
  for (const { id, previousId, delayMs, blob } of entries) args.push(id, previousId, delayMs, blob)
  const reply = replyArray(
    await link.run(
      'append-once',
      [
        keys.commands,
        keys.watermarks,
        keys.due,
        keys.dueBodies,
        keys.records,
        keys.counter,
        keys.tenantLoads,
      ],
      args,
    ),
  )
  return { appended: replyNumber(reply[0]), gap: replyNumber(reply[2]) === 1 }
}

/** Drops what all targets have taken over, up to and including `lastId`. */
export async function trimOutbox(link: RedisLink, keys: PartitionKeys, lastId: string): Promise<void> {
  await link.use('XTRIM of the outbox', (client) => client.xtrim(keys.outbox, 'MINID', entryIdAfter(lastId)))
}
