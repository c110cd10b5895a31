/**
 * What each tenant has waiting in a partition: commands that were accepted and have not ended, and the bytes of their entries.
 *
 * The scripts that let a command in, move it or end it keep both, in the same step, and only for commands that have a tenant. A
 * command waits from when it is appended (or scheduled, relayed, fired, redriven) until it is done, dead or cancelled; a retry
 * goes on waiting. Should the figures ever be wrong, because somebody deleted entries by hand, they are counted again as soon as
 * little enough waits.
 */
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import { isNothing, replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { GROUP, type PartitionKeys } from './keys.ts'
import { packLists } from './script-lists.ts'

/** How much of a tenant may wait in one partition. */
export interface TenantQuota {
  readonly countMax: number
  readonly bytesMax: number
}

export const NO_QUOTA: TenantQuota = { countMax: Number.MAX_SAFE_INTEGER, bytesMax: Number.MAX_SAFE_INTEGER }

/** By how much a settlement changes what a tenant has waiting. */
export interface TenantLoad {
  readonly tenant: Tenant
  readonly count: number
  readonly bytes: number
}

/** Whose each of them is, as an argument of a script: '' where none has a tenant. */
export function packTenants(
  tenants: readonly (Tenant | undefined)[],
  ...before: readonly string[][]
): Buffer | '' {
  const isOwned = tenants.some((tenant) => tenant !== undefined && tenant !== NO_TENANT)
  return isOwned ? packLists([...before, tenants.map((tenant) => tenant ?? NO_TENANT)]) : ''
}

export function quotaArguments({ countMax, bytesMax }: TenantQuota): string[] {
  return [String(countMax), String(bytesMax)]
}

/** What each tenant has waiting in this partition now. */
export async function readTenantLoads(link: RedisLink, keys: PartitionKeys): Promise<TenantLoad[]> {
  const fields = await link.use('the loads of tenants', (client) => client.hgetall(keys.tenantLoads))
  return Object.entries(fields).flatMap(([tenant, count]) => {
    if (tenant === DOUBT || tenant.endsWith('/b')) return []
    return [{ tenant, count: Number(count), bytes: Number(fields[`${tenant}/b`] ?? 0) }]
  })
}

/** The field that a script sets when a load would fall below nothing. */
const DOUBT = '!'

export interface WrongLoad {
  readonly kept: TenantLoad
  readonly counted: TenantLoad
}

const RECOUNT_ENTRIES_MAX = 2000

/** Counts again and mends; answers what was wrong, or undefined when too much waits to be counted at once. */
export async function recountTenants(
  link: RedisLink,
  keys: PartitionKeys,
): Promise<readonly WrongLoad[] | undefined> {
  const reply = await link.run(
    'recount-tenants',
    [keys.commands, keys.ready, keys.dueBodies, keys.tenantLoads],
    [GROUP, RECOUNT_ENTRIES_MAX],
  )
  if (isNothing(reply)) return undefined
  return replyArray(reply).map((row) => {
    const [name, ...figures] = replyArray(row)
    const tenant = replyText(name)
    const [count = 0, bytes = 0, trueCount = 0, trueBytes = 0] = figures.map(replyNumber)
    return { kept: { tenant, count, bytes }, counted: { tenant, count: trueCount, bytes: trueBytes } }
  })
}
