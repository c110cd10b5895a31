/**
 * The whole gate: the static checks, then every test file (or those whose path matches an argument). The last line is
 * the sum, `N passed, N failed`. A run that crashed, or that found nothing to test, has failed, whatever it counted.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runChecks } from './check.ts'

type Sum = { readonly passed: number; readonly failed: number }

/** Test output goes straight to the terminal; the counts come from bun's JUnit report, missing after a crash. */
async function runTests(filters: readonly string[]): Promise<Sum> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-report-'))
  const report = join(folder, 'junit.xml')
  try {
    const child = Bun.spawn(
      [
        process.execPath,
        'test',
        '--timeout=30000',
        '--reporter=junit',
        `--reporter-outfile=${report}`,
        ...filters,
      ],
      {
        cwd: join(import.meta.dir, '..'),
        stdio: ['inherit', 'inherit', 'inherit'],
      },
    )
    const stop = (signal: NodeJS.Signals): void => child.kill(signal)
    process.on('SIGTERM', stop)
    const code = await child.exited
    process.off('SIGTERM', stop)
    const xml = await Bun.file(report)
      .text()
      .catch(() => '')
    return sumOf(xml, code)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function sumOf(xml: string, code: number): Sum {
  const suites = /<testsuites [^>]*>/.exec(xml)?.[0] ?? ''
  const count = (name: string): number => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suites)?.[1] ?? 0)
  const passed = count('tests') - count('failures') - count('skipped')
  const unexplained = count('failures') === 0 && (code !== 0 || passed === 0)
  return { passed, failed: count('failures') + (unexplained ? 1 : 0) }
}

const checks = await runChecks()
const tests = await runTests(process.argv.slice(2))
const failed = checks.failed + tests.failed
console.log(`${checks.passed + tests.passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
