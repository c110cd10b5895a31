/** Settings about what one tenant may have waiting, so that it delays nobody else for longer (docs/tenants.md). */
import type { Variable } from './environment.ts'
import { whole } from './setting-values.ts'

export interface QuotaSettings {
  /** Commands that one tenant may have waiting in one partition. */
  readonly tenantWaitingMax: number
  /** Bytes of their entries. */
  readonly tenantWaitingBytesMax: number
}

interface QuotaSource {
  readonly variable: Variable
  readonly flag: string
  readonly help: string
  readonly fallback: string
  readonly parse: (text: string | undefined, where: string) => number
}

export const QUOTA_SETTINGS: { readonly [Name in keyof QuotaSettings]: QuotaSource } = {
  tenantWaitingMax: {
    variable: 'MILLRACE_TENANT_WAITING_MAX',
    flag: '--tenant-waiting-max <number>',
    help: 'commands that one tenant may have waiting in one partition; beyond it that tenant gets 429',
    fallback: '100000',
    parse: whole(1, 100_000_000),
  },
  tenantWaitingBytesMax: {
    variable: 'MILLRACE_TENANT_WAITING_BYTES_MAX',
    flag: '--tenant-waiting-bytes-max <number>',
    help: 'bytes of them',
    fallback: '268435456',
    // Any one command must fit.
    parse: whole(1024 ** 2, 9_999_999_999),
  },
}

export function readQuotaSettings(read: (name: keyof QuotaSettings) => number): QuotaSettings {
  return {
    tenantWaitingMax: read('tenantWaitingMax'),
    tenantWaitingBytesMax: read('tenantWaitingBytesMax'),
  }
}
