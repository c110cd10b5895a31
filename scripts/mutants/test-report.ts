/**
 * What bun's JUnit report says of a run of tests: which passed, which failed, and whether a failure is one that a test
 * meant. An assertion or a wait in vain is; a syntax error, a TypeError or a crash proves nothing about a mutant.
 */

export interface Failure {
  /** Own name of the test. */
  readonly test: string
  /** The first line of what it said. */
  readonly said: string
  readonly meant: boolean
}

export interface TestReport {
  readonly passed: readonly string[]
  readonly failed: readonly Failure[]
}

/** Waits of test/support that ran out, and fast-check's counterexamples; an assertion and a time-out have a type of their own. */
const IN_VAIN = /^waited \d+ ms in vain for |^no \S+ as expected within \d+ ms|^Property failed after /

export function readReport(xml: string): TestReport {
  const passed: string[] = []
  const failed: Failure[] = []
  for (const [, head = '', body = ''] of xml.matchAll(
    /<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    const test = attribute(head, 'name')
    const failure = /<(?:failure|error)\b([^>]*)>/.exec(body)?.[1]
    if (failure !== undefined) failed.push(toFailure(test, failure))
    else if (!body.includes('<skipped')) passed.push(test)
  }
  return { passed, failed }
}

function toFailure(test: string, head: string): Failure {
  const type = attribute(head, 'type')
  const message = attribute(head, 'message')
  const meant = type === 'AssertionError' || type === 'TimeoutError' || IN_VAIN.test(message)
  const lines = message.split('\n').filter((line) => line.trim() !== '')
  const said = lines.slice(0, 3).join(' · ').slice(0, 160)
  return { test, meant, said: meant ? said : `${type}: ${said}` }
}

function attribute(head: string, name: string): string {
  const raw = new RegExp(`\\b${name}="([^"]*)"`).exec(head)?.[1] ?? ''
  const named: Record<string, string> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }
  return raw.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (whole, decimal, hex, word) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal))
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16))
    return named[word] ?? whole
  })
}
