# Where a recipe's make.sh finds and puts things: `source paths.sh LIMBER OUT [WORK]`, in the recipe's own folder afterwards.
limber=$(realpath "$1")
mkdir -p "$2" "${3:-$2/data}"
out=$(realpath "$2")
work=$(realpath "${3:-$2/data}")
cd "$(dirname "$0")"
python=${PYTHON:-python3}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
