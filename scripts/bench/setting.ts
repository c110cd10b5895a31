/** The setting of a run: what a reader must know before comparing its figures with others. */
import { cpus, loadavg, release, totalmem } from 'node:os'
import { version as millraceVersion } from '../../package.json' with { type: 'json' }
import { REDIS_SERVER } from '../fleet/redis-server.ts'
import { PAYLOAD_BYTES } from './payload.ts'

export interface Setting {
  readonly date: string
  /** False for --quick: fewer rounds, smaller backlogs. */
  readonly full: boolean
  readonly durability: string
  readonly payloadBytes: number
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memoryGiB: number
    readonly system: string
  }
  /** Load of the last minute before it began: above a half, something else was running. */
  readonly loadBefore: number
  readonly versions: Readonly<Record<string, string>>
  readonly commit: string
}

export function readSetting(quick: boolean): Setting {
  const processors = cpus()
  return {
    date: new Date().toISOString(),
    full: !quick,
    durability: 'everysec, for everybody; no rewrite of the append-only file during a run',
    payloadBytes: PAYLOAD_BYTES,
    machine: {
      cpu: processors[0]?.model.trim() ?? 'unknown',
      cores: processors.length,
      memoryGiB: Math.round(totalmem() / 1024 ** 3),
      system: `${process.platform} ${release()}`,
    },
    loadBefore: Number((loadavg()[0] ?? 0).toFixed(2)),
    versions: {
      millrace: millraceVersion,
      bun: Bun.version,
      redis: output([REDIS_SERVER, '--version']).match(/v=(\S+)/)?.[1] ?? 'unknown',
    },
    commit: output(['git', 'rev-parse', '--short', 'HEAD']).trim(),
  }
}

function output(command: string[]): string {
  try {
    return Bun.spawnSync(command, { cwd: import.meta.dir, stderr: 'ignore' }).stdout.toString()
  } catch {
    return ''
  }
}
