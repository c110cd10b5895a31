/** Rate limit rules as an operator writes them, and what each mistake is told as. */
import { describe, expect, test } from 'bun:test'
import { checkRateLimitNames, parseRateLimits } from '../src/policies/rate-limit-rules.ts'

function thrownBy(work: () => unknown): Error {
  try {
    work()
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error('it was expected to throw, and did not')
}

const parse = (text: string) => parseRateLimits(text, 'MILLRACE_RATE_LIMITS')

test('rules are read from text, one behind the other', () => {
  expect(parse('')).toEqual([])
  expect(
    parse(`
      api: 100 in 60s by credential;
      writes: 3000/m burst 100 by tenant, route on command.send, command.send-bulk
      orders: 5 in 1h for order.place order.cancel ;
      all: 0.5/s burst 3
    `),
  ).toEqual([
    {
      ...{ name: 'api', quota: { kind: 'window', quota: 100, windowS: 60 }, by: ['credential'] },
      ...{ routes: undefined, types: undefined },
    },
    {
      ...{ name: 'writes', quota: { kind: 'bucket', ratePerS: 50, burst: 100 }, by: ['tenant', 'route'] },
      ...{ routes: ['command.send', 'command.send-bulk'], types: undefined },
    },
    {
      ...{ name: 'orders', quota: { kind: 'window', quota: 5, windowS: 3600 }, by: [] },
      ...{ routes: undefined, types: ['order.place', 'order.cancel'] },
    },
    {
      ...{ name: 'all', quota: { kind: 'bucket', ratePerS: 0.5, burst: 3 }, by: [] },
      ...{ routes: undefined, types: undefined },
    },
  ])
})

test('rules are read from JSON', () => {
  const rules = [
    { name: 'api', quota: 100, windowS: 60, by: ['credential'] },
    { name: 'orders', ratePerS: 50, burst: 100, types: ['order.place'] },
  ]
  expect(parse(JSON.stringify(rules))).toEqual(
    parse('api: 100 in 60s by credential; orders: 50/s burst 100 for order.place'),
  )
})

describe('a mistake is one sentence that says what to do', () => {
  const mistakes: readonly (readonly [string, RegExp])[] = [
    ['api 100 in 60s', /which is no rule; write "name: 100 in 60s by credential"/],
    ['api: 100 per 60s', /which is no rule/],
    ['api: 50/s', /which is no rule/],
    ['Api: 100 in 60s', /names a rule "Api"; use 1-63 characters/],
    ['a: 1 in 1s; a: 2 in 1s', /two rules named "a"/],
    ['a: 0 in 1s', /"quota" is 0; use a whole number from 1/],
    ['a: 1 in 48h', /"windowS" is 172800; use a whole number from 1 to 86400/],
    ['a: 0/s burst 5', /"ratePerS" is 0; use a number/],
    ['a: 1 in 1s by credentail', /counts by "credentail".*did you mean "credential"\?/],
    ['[{"name":"a","quota":1}', /is not JSON/],
    ['["a"]', /must be a list of rules/],
    ['[{"name":"a","quota":1,"windowS":1,"burst":2,"ratePerS":1}]', /needs either "quota" and "windowS"/],
    ['[{"name":"a","quota":1,"window":1}]', /has no option "window". Did you mean "windowS"\?/],
    ['[{"name":"a","quota":1,"windowS":1,"by":"tenant"}]', /"by" must be a list of tenant/],
    ['[{"name":"a","quota":1,"windowS":1,"routes":[]}]', /"routes" must be a list of names/],
  ]
  for (const [text, says] of mistakes) {
    test(text, () => {
      const error = thrownBy(() => parse(text))
      expect(error.message).toMatch(says)
      expect(error.message).toMatch(/^MILLRACE_RATE_LIMITS/)
    })
  }
})

test('a rule names only routes and command types that there are', () => {
  const known = { routes: ['command.send', 'view.read'], types: ['order.place'] }
  checkRateLimitNames(parse('a: 1 in 1s on view.read; b: 1 in 1s for order.place'), known)
  const route = thrownBy(() => checkRateLimitNames(parse('a: 1 in 1s on view.raed'), known))
  expect(route.message).toBe(
    'Rate limit "a" names the route "view.raed", which does not exist (did you mean "view.read"?).',
  )
  const type = thrownBy(() => checkRateLimitNames(parse('a: 1 in 1s for nothing.like-it'), known))
  expect(type.message).toMatch(
    /names the command type "nothing.like-it", which does not exist; there are order.place/,
  )
})
