/**
 * An application in a folder of its own, and Millrace processes that run it from this checkout's sources: real processes,
 * ended by their ids, with whatever redis-server they left behind.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, realpath, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { root } from '../source-files.ts'
import { until } from './until.ts'

export interface Project extends AsyncDisposable {
  readonly folder: string
  readonly dataFolder: string
  /** Starts `millrace start …`; ports are free ones unless the arguments say otherwise. */
  start(args?: readonly string[], env?: Readonly<Record<string, string>>): MillraceProcess
}

const ENTRY = join(root, 'src/cli/main.ts')

export const SMALL_APP: Readonly<Record<string, string>> = {
  'workers/notes.ts': `
    import { defineCommand, defineEvent, defineHandler, defineProjection, done } from 'millrace'
    import { z } from 'zod'
    const note = z.object({ author: z.string(), text: z.string() })
    export const writeNote = defineCommand({ type: 'note.write', payload: note, key: (payload) => payload.author })
    export const noteWritten = defineEvent({ type: 'note.written', payload: note })
    export const onWriteNote = defineHandler(writeNote, (command) => {
      command.emit(noteWritten, command.payload)
      return done()
    })
    export const notesByAuthor = defineProjection({ name: 'notes-by-author', initial: () => ({ count: 0 }) })
      .on(noteWritten, (event) => event.payload.author, (view) => ({ count: view.count + 1 }))
  `,
}

/** Makes a folder with these files, in which `millrace` and the packages of this checkout can be imported. */
export async function makeProject(files: Readonly<Record<string, string>> = SMALL_APP): Promise<Project> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'millrace-app-')))
  const paths = {
    millrace: [join(root, 'src/index.ts')],
    'millrace/client': [join(root, 'src/client.ts')],
    'millrace/testing': [join(root, 'src/testing.ts')],
  }
  await Bun.write(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: { paths } }))
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await Bun.write(join(folder, path), text)
  }
  const dataFolder = join(folder, '.millrace')
  const processes: MillraceProcess[] = []
  return {
    folder,
    dataFolder,
    start: (args = [], env = {}) => {
      const started = new MillraceProcess(folder, args, env)
      processes.push(started)
      return started
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(processes.map((each) => each.kill()))
      await endServersOf(folder)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export class MillraceProcess {
  readonly child: Bun.Subprocess<'ignore', 'pipe', 'pipe'>
  readonly #stdout: Promise<void>
  readonly #stderr: Promise<void>
  log = ''
  lines = ''

  constructor(folder: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    const inherited = ['PATH', 'HOME', 'TMPDIR', 'MILLRACE_REDIS_SERVER']
    const kept = inherited.flatMap((name) => (Bun.env[name] === undefined ? [] : [[name, Bun.env[name]]]))
    this.child = Bun.spawn([process.execPath, ENTRY, 'start', ...args], {
      cwd: folder,
      env: { ...Object.fromEntries(kept), PORT: '0', MILLRACE_ADMIN_PORT: '0', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#stdout = collect(this.child.stdout, (text) => {
      this.log += text
    })
    this.#stderr = collect(this.child.stderr, (text) => {
      this.lines += text
    })
  }

  get pid(): number {
    return this.child.pid
  }

  async untilReady(): Promise<void> {
    await until(
      'the process to be ready',
      () => this.lines.includes('ready;') || this.child.exitCode !== null,
    )
    if (!this.lines.includes('ready;')) throw new Error(`ended with ${this.child.exitCode}: ${this.lines}`)
  }

  /** A start line's value, such as `public`. */
  line(name: string): string {
    return new RegExp(`^millrace: ${name} +(.*)$`, 'm').exec(this.lines)?.[1] ?? ''
  }

  /** Sends a signal and answers the exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
    this.child.kill(signal)
    return this.ended()
  }

  /** Sends a signal to the whole process group, as a terminal does. */
  async interruptGroup(): Promise<number> {
    process.kill(-this.pid, 'SIGINT')
    return this.ended()
  }

  async ended(): Promise<number> {
    const code = await this.child.exited
    await Promise.all([this.#stdout, this.#stderr])
    return code
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.child.exited
  }
}

async function collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder()
  for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }))
}

/** Ids of the redis-server processes whose command line names a file below this folder. */
export function serversOf(folder: string): number[] {
  return commandLines()
    .filter(({ words }) => words.some((word) => word.startsWith(`${folder}/`)))
    .filter(({ words }) => words.some((word) => /(redis|valkey)-server$/.test(word)))
    .map(({ pid }) => pid)
}

/** From /proc, because a small container has no `ps`; a zombie has no command line there. */
export function commandLines(): { pid: number; words: string[] }[] {
  if (process.platform !== 'linux') {
    const listed = Bun.spawnSync(['ps', '-axww', '-o', 'pid=,command=']).stdout.toString()
    return listed.split('\n').map((line) => {
      const [pid, ...words] = line.trim().split(/\s+/)
      return { pid: Number(pid), words }
    })
  }
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        return [{ pid: Number(name), words: readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0') }]
      } catch {
        return []
      }
    })
}

async function endServersOf(folder: string): Promise<void> {
  for (const pid of serversOf(folder)) process.kill(pid, 'SIGKILL')
  await until('the redis-servers of the test to end', () => serversOf(folder).length === 0)
}
