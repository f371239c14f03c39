"""What Proctor is measured beside: Buildbot as a peer, and a bare loop as the bound that nothing can be under."""

PARALLEL = 4

# The smallest job that still does a job's work: start a process, run something, leave a JUnit report behind.
# Proctor, the peer and the bound all run exactly this, so that what differs is only what each puts around it.
JOB_SCRIPT = (
    'mkdir -p "$PROCTOR_REPORT_DIR"; /bin/true; '
    'printf \'<testsuite name="bench" tests="1" failures="0" errors="0">'
    '<testcase classname="bench" name="true" time="0"/></testsuite>\' > "$PROCTOR_REPORT_DIR/junit.xml"'
)
JOB = ("sh", "-c", JOB_SCRIPT)

# The instant at which a job's own process runs, in nanoseconds since 1970, left for the benchmark to read.
STAMP_SCRIPT = 'mkdir -p "$PROCTOR_REPORT_DIR"; date +%s%N > "$PROCTOR_REPORT_DIR/started"'
