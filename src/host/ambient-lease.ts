/**
 * `lease` for code that has no hold of the running process: handlers and singletons in `workers/`. It finds the Millrace
 * that runs in this process; when tests run several in one, each has its own `lease`, and this one says so.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { Lease, LeaseOptions } from '../contracts/lease.ts'
import type { Leases } from '../leases/leases.ts'

const standing = new Set<Leases>()

/** Makes the leases of a process findable for as long as they run. */
export function standingLeases(leases: Leases): Leases {
  standing.add(leases)
  return leases
}

/**
 * Waits until this process holds the lease of this name: 1-63 characters of a-z, 0-9, "_" and "-". At most one process of
 * all on this Redis holds it; see `Lease` for what that means, and `LeaseOptions` for how long it may take.
 *
 *     await using turn = await lease('nightly-export', { signal: context.signal })
 *     for (const part of parts) {
 *       turn.assertHeld()
 *       await store(part, { epoch: turn.epoch, signal: turn.signal })
 *     }
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`; `lease.held`, `redis.unavailable`, `redis.unknown` when
 * `waitMs` is over; `service.stopped` when no Millrace runs here; or the reason of `signal`
 */
export async function lease(name: string, options: LeaseOptions = {}): Promise<Lease> {
  for (const leases of standing) {
    if (leases.state === 'stopped') standing.delete(leases)
  }
  const [first, second] = standing
  if (first === undefined) {
    throw new MillraceError(
      'service.stopped',
      'No Millrace runs in this process: start one, then ask for the lease, or use the `lease` of the one you have.',
    )
  }
  if (second !== undefined) {
    throw new MillraceError(
      'config.invalid',
      'Several Millraces run in this process: use the `lease` of the one you mean.',
    )
  }
  return await first.acquire(name, options)
}
