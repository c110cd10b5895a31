/** Which of many commands of a partition still wait or run, in one script: for whoever waits for their end. */
import { replyArray, replyNumber } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { GROUP, type PartitionKeys } from './keys.ts'

/** In the order of the tokens. Where it says false, `readStatus` has the last word. */
export async function readOpen(
  link: RedisLink,
  keys: PartitionKeys,
  tokens: readonly string[],
): Promise<boolean[]> {
  const scriptKeys = [keys.commands, keys.ready, keys.records]
  const reply = replyArray(await link.run('read-open', scriptKeys, [GROUP, ...tokens]))
  return reply.map((open) => replyNumber(open) === 1)
}
