/** Appending for tenants: in one script, as far as each of them may have more waiting. Who has no tenant passes this by. */
import { NO_TENANT } from '../contracts/tenant.ts'
import { replyText } from './bytes.ts'
import type { AppendResult, NewCommand } from './command-log.ts'
import type { ScriptRunner } from './connection.ts'
import { joinEntries } from './entry-slab.ts'
import type { PartitionKeys } from './keys.ts'
import { quotaArguments, type TenantQuota } from './tenant-loads.ts'

/**
 * Commands without idempotency key and delay. Those of one tenant stay in order; the same key of two is two keys, so nothing
 * depends on the order among tenants.
 */
export async function appendOwned(
  link: ScriptRunner,
  keys: PartitionKeys,
  commands: readonly NewCommand[],
  quota: TenantQuota,
): Promise<AppendResult[]> {
  const groups = Map.groupBy(commands.keys(), (index) => commands[index]?.tenant ?? NO_TENANT)
  const order = [...groups.values()].flat()
  const entries = order.map((index) => (commands[index] as NewCommand).entry)
  const args: (string | number | Buffer)[] = [joinEntries(entries), ...quotaArguments(quota)]
  for (const [tenant, own] of groups) args.push(tenant, own.length)
  const reply = replyText(await link.run('append-owned', [keys.commands, keys.tenantLoads], args))
  const tokens = reply === '' ? [] : reply.split(' ')
  const results = new Array<AppendResult>(commands.length)
  let newest = ''
  for (const [at, index] of order.entries()) {
    const token = tokens[at]
    if (token === undefined) continue
    const isStored = token !== '%'
    if (isStored) newest = token.slice(1)
    results[index] = isStored ? { kind: 'stored', token } : { kind: 'quota' }
  }
  if (newest !== '') link.marks.note(keys, 'commands', newest)
  return results
}
