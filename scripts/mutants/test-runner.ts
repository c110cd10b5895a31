/**
 * Runs tests of one file of the copy, by their names, up to the first that fails. Everything that a run starts belongs to a
 * process group of its own, which is ended with it: a broken tree leaves redis-servers and workers behind.
 */
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { readReport, type TestReport } from './test-report.ts'
import type { TreeCopy } from './tree-copy.ts'

/** For tests that name no limit of their own. */
const TEST_LIMIT_MS = 20_000

export interface TestRun extends TestReport {
  readonly exitCode: number
  /** The end of what it printed, for failures that no report explains. */
  readonly tail: string
}

export class TestRunner {
  readonly #copy: TreeCopy
  #child: Subprocess | undefined

  constructor(copy: TreeCopy) {
    this.#copy = copy
  }

  async run(file: string, tests: readonly string[]): Promise<TestRun> {
    const { folder, temporary } = this.#copy
    const report = join(temporary, 'junit.xml')
    const pattern = tests.map((name) => `(^|\\s)${escaped(name)}$`).join('|')
    await Bun.file(report)
      .delete()
      .catch(() => undefined)
    const child = Bun.spawn(
      [
        ...[process.execPath, 'test', `./${file}`, '-t', pattern, '--bail=1', `--timeout=${TEST_LIMIT_MS}`],
        ...['--reporter=junit', `--reporter-outfile=${report}`],
      ],
      {
        cwd: folder,
        env: { ...process.env, TMPDIR: temporary, NO_COLOR: '1', FORCE_COLOR: undefined },
        stdio: ['ignore', 'pipe', 'pipe'],
        detached: true,
      },
    )
    this.#child = child
    const output = Promise.all([child.stdout.text(), child.stderr.text()])
    const exitCode = await child.exited
    this.end()
    const text = (await output).join('\n').trimEnd()
    const xml = await Bun.file(report)
      .text()
      .catch(() => '')
    return { ...readReport(xml), exitCode, tail: text.split('\n').slice(-15).join('\n') }
  }

  /** Ends what runs, with all that it started. */
  end(): void {
    const child = this.#child
    this.#child = undefined
    if (child === undefined) return
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // Nothing of it is left.
    }
  }
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}
