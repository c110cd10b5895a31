/** The command line of a process by its id: whoever signals a process that it did not just start checks what it is first. */
import { existsSync, readFileSync } from 'node:fs'

/** Empty when there is no such process. */
export function commandLine(pid: number): string {
  return existsSync('/proc/self/cmdline') ? procCommand(pid) : psCommand(pid)
}

function procCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

function psCommand(pid: number): string {
  return Bun.spawnSync(['ps', '-ww', '-o', 'command=', '-p', String(pid)]).stdout.toString()
}
