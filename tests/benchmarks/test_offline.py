"""Bytes that a program of XLA's moves, read off its text."""

from benchmarks.accelerator.offline import kernels

PROGRAM = """\
%fused (p0: f32[4,8], p1: f32[8], p2: s32[]) -> f32[4,8] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %row = f32[1,8]{1,0} bitcast(%p1)
  %zero = s32[] constant(0)
  ROOT %out = f32[4,8]{1,0} dynamic-update-slice(%p0, %row, %p2, %zero)
}

%body (s: (s32[], f32[4,8], f32[8])) -> (s32[], f32[4,8], f32[8]) {
  %s = (s32[], f32[4,8]{1,0}, f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %all = f32[4,8]{1,0} get-tuple-element(%s), index=1
  %one = f32[8]{0} get-tuple-element(%s), index=2
  %put = f32[4,8]{1,0} fusion(%all, %one, %i), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[4,8]{1,0}, f32[8]{0}) tuple(%i, %put, %one)
}

ENTRY %main (a: f32[8,8], b: bf16[8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %b = bf16[8]{0} parameter(1)
  %loop = (s32[], f32[4,8]{1,0}, f32[8]{0}) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %mm = f32[8,8]{1,0} custom-call(%a, %b), custom_call_target="product"
}
"""  # noqa: E501  # lines as the compiler writes them


def test_slices_count_by_their_own_size_and_loops_as_often_as_they_run():
    put, product = kernels(PROGRAM)
    # A row of 32 bytes is read and written; the index has four.
    assert put == ("fusion kLoop", 32 + 32 + 4, 4)
    assert product == ("custom-call product", 256 + 16 + 256, 1)
