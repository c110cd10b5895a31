/**
 * Where operator commands find a running process: what `MILLRACE_URL` and `MILLRACE_ADMIN_URL` say, else where a process
 * with the same environment would listen on this machine.
 */
import { readEnvironment, readOperatorKey, readProcessUrls } from '../config/environment.ts'
import { resolveSettings } from '../config/settings.ts'
import type { OperatorTargets } from './operator-commands.ts'

export function processUrls(): OperatorTargets {
  const { publicUrl, adminUrl } = readProcessUrls()
  const { host, port, adminHost, adminPort } = resolveSettings({ environment: readEnvironment() })
  return {
    publicUrl: publicUrl ?? urlOf(host, port),
    adminUrl: adminUrl ?? urlOf(adminHost, adminPort),
    key: readOperatorKey(),
  }
}

/** An address that stands for all of this machine's is not one to connect to. */
function urlOf(host: string, port: number): string {
  const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
}
